"""A directory that is served, secrets beside it, and attempts to get at these."""

import os
from pathlib import Path

import pytest

SECRET = "the secret\n"

ALLOWED = {
    "open.txt": "open\n",
    "./open.txt": "open\n",
    "//open.txt": "open\n",
    "sub/deep.txt": "deep\n",
    "inside": "deep\n",
    "inside-dir/deep.txt": "deep\n",
    "inside-dir/up": "open\n",
    "sub/up": "open\n",
}
"""Paths that lead to a file, and what is in it."""

REFUSED = [
    "../outside/secret.txt",
    "../../outside/secret.txt",
    "../root-too/secret.txt",
    "./.././outside/secret.txt",
    "sub/../../outside/secret.txt",
    "sub/../../../../../../../../../../etc/passwd",
    "/etc/passwd",
    "//etc/passwd",
    "....//....//outside/secret.txt",
    "..\\outside\\secret.txt",
    "%2e%2e/outside/secret.txt",
    "%2e%2e%2foutside%2fsecret.txt",
    "%252e%252e/outside/secret.txt",
    "..%c0%af..%c0%afoutside/secret.txt",
    "..;/outside/secret.txt",
    "~/secret.txt",
    "open.txt/../../outside/secret.txt",
    "out",
    "out-dir/secret.txt",
    "out-dir/../outside/secret.txt",
    "out-dir/../../outside/secret.txt",
    "out-of-sub/secret.txt",
    "sub/up-up",
    "chain",
    "chain-dir/secret.txt",
    "absolute",
    "absolute-inside",
    "loop",
    "loop/x",
    "dangling",
    "open.txt/x",
    ".hidden",
    "./.hidden",
    ".dir/hidden.txt",
    "sub/.hidden",
    "sub/../.hidden",
    "to-hidden",
    "pipe",
    "open.txt\0",
    "open.txt\0.html",
    "\0",
    "x" * 300,
    "sub/" * 200 + "deep.txt",
]
"""Paths that lead to nothing that a client may have."""

every_attempt = pytest.mark.parametrize("attempt", REFUSED, ids=lambda attempt: ascii(attempt[:40]))


def make_tree(folder: Path) -> Path:
    """Make the directory in a folder, with the secrets beside it, and return it."""
    root = folder / "root"
    for directory in (root / "sub", root / ".dir", folder / "outside", folder / "root-too"):
        directory.mkdir(parents=True)
    for secret in (folder / "outside", folder / "root-too"):
        (secret / "secret.txt").write_text(SECRET)
    for hidden in (".hidden", ".dir/hidden.txt", "sub/.hidden"):
        (root / hidden).write_text(SECRET)
    (root / "open.txt").write_text("open\n")
    (root / "sub" / "deep.txt").write_text("deep\n")
    os.mkfifo(root / "pipe")
    for name, target in {
        "inside": "sub/deep.txt",
        "inside-dir": "./sub/",
        "sub/up": "../open.txt",
        "sub/up-up": "../../outside/secret.txt",
        "out": "../outside/secret.txt",
        "out-dir": "../outside",
        "out-of-sub": "sub/../../outside",
        "chain": "out",
        "chain-dir": "out-dir",
        "absolute": str(folder / "outside" / "secret.txt"),
        "absolute-inside": str(root / "open.txt"),
        "loop": "loop",
        "dangling": "nowhere",
        "to-hidden": ".hidden",
    }.items():
        (root / name).symlink_to(target)
    return root
