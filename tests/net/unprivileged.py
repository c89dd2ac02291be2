"""Run a piece of Python as a user without privileges, whoever runs the tests."""

import os
import subprocess
import sys

NOBODY = 65534

PROGRAM = """
import encodings.idna, os, urllib.parse  # what Python loads late may lie where this user cannot read
from tamed.errors import TamedError
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid({nobody})
    os.setuid({nobody})
try:
    {statement}
except TamedError as error:
    print(type(error).__name__, error, sep=": ")
else:
    print("no error")
"""


def run_unprivileged(imports: str, statement: str) -> str:
    """Run a statement after some imports; return the error of ours that it raised, with its class."""
    program = imports + PROGRAM.format(nobody=NOBODY, statement=statement)
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, env=os.environ
    )
    return done.stdout.strip()
