"""Fresh interpreters, for tests of what an import loads."""

import os
import subprocess
import sys

_PROGRAM = """
import sys
before = set(sys.modules)
{statement}
for name in sorted(set(sys.modules) - before):
    print(name)
"""


def loaded_by(statement: str) -> set[str]:
    """Return the modules that a statement loads in a fresh interpreter, besides those of any start.

    That interpreter is not measured: what measures it would be among the modules.
    """
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(statement=statement)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=environ,
    )
    return set(done.stdout.split())
