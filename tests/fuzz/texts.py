"""Targets: the texts that operators write, and that tools make of what others have said."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tamed.config.deployment import Deployment, read_env_file
from tamed.errors import ConfigurationError
from tamed.net.endpoint import BadEndpoint, Endpoint
from tamed.passwords import PasswordFile, PasswordHash
from tamed.plugins.values import Duration, Size
from tests.fuzz.engine import Target

__all__ = ["TARGETS"]

_HASH: Final = b"$scrypt$ln=15,r=8,p=1$c29tZSBzYWx0IGhlcmU$ZGlnZXN0IGRpZ2VzdCBkaWdlc3QgZGlnZXN0IDA"
_DEPLOYMENT: Final = b"""name = "verse"
[daemon]
user = "verse"
workers = 4
[log]
level = ["info", "tamed.net=debug"]
[services.poetry]
plugin = "fastpoetry"
port = 10000
"""
_INLINE: Final = b"""[services]
a = {plugin = "web", listen = ["tls://:443?cert=a.pem", ":80"], since = 2026-11-23T12:31:05Z}
"""
_NUMBERS: Final = (b"ms", b"1h30m", b"1.5", b"MiB", b"kB", b"PB", b"e9", b"inf", b"nan", b"_")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _endpoint(data: bytes) -> object:
    """Whatever is an endpoint is the same when it is written down and read again."""
    endpoint = Endpoint.parse(_text(data))
    assert Endpoint.parse(str(endpoint)) == endpoint
    return type(endpoint)


def _number(data: bytes) -> object:
    """A duration or a size is the same when it is written down and read again."""
    text = _text(data)
    for kind in (Duration, Size):
        try:
            value = kind(text)
        except ValueError:
            continue
        assert kind(str(value)) == value
        return kind
    return None


def _deployment(data: bytes) -> object:
    found = Deployment.parse(_text(data), Path("deployment.toml"))
    assert found.services
    return len(found.services)


def _password_hash(data: bytes) -> object:
    found = PasswordHash.parse(_text(data))
    assert found.memory <= 1 << 28
    return found.p


class _InFile:
    """A reader of a file, which every input is written into."""

    def __init__(self, read: Callable[[Path], object]) -> None:
        self._read = read
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._file = Path()

    def __call__(self, data: bytes) -> object:
        if self._folder is None:  # when it is first used: most runs are of other targets
            self._folder = tempfile.TemporaryDirectory(
                prefix="tamed-fuzz-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None
            )
            self._file = Path(self._folder.name, "input")
            self._file.touch(0o600)
        with self._file.open("wb", buffering=0) as file:
            file.write(data)
        return self._read(self._file)


def _variables(file: Path) -> object:
    """Every variable can be put into an environment."""
    variables = read_env_file(file)
    for name, value in variables.items():
        assert name
        assert "=" not in name
        assert "\n" not in value
        assert "\0" not in name + value
    return len(variables)


def _users(file: Path) -> None:
    PasswordFile(file).load()


TARGETS: Final = (
    Target(
        "endpoint",
        _endpoint,
        (
            b"localhost:10000",
            b":80",
            b"[::1]:443",
            b"[fe80::1%eth0]:22",
            b"tcp://example.org:80",
            b"127.0.0.1:0",
            b"tls://localhost:10443?cert=server.pem&key=server.key&client_ca=ca.pem",
            b"unix:/run/x.sock?mode=660",
            b"unix:@name",
            b"unix:///run/x.sock",
            b"fd://3",
            b"systemd://verse",
            b"systemd://",
        ),
        (
            b"tls://",
            b"unix:",
            b"fd://",
            b"systemd://",
            b"?cert=",
            b"&key=",
            b"?mode=",
            b"[::]",
            b"%eth0",
            b"%2F",
            b"::",
        ),
        (BadEndpoint,),
    ),
    Target(
        "duration or size",
        _number,
        (b"30s", b"5m", b"1h30m", b"500ms", b"1.5h", b"36500d", b"1 MB", b"512 KiB", b"4096", b"0"),
        _NUMBERS,
    ),
    Target(
        "deployment",
        _deployment,
        (
            _DEPLOYMENT,
            b'[services.site]\napplication = "app.py"\n',
            _INLINE,
        ),
        (
            b"[services.a]\n",
            b'plugin = "web"\n',
            b"a.b.c = 1\n",
            b"[[a]]\n",
            b'"""',
            b"'''",
            b"0x",
            b"1e999",
            b"\\u0000",
        ),
        (ConfigurationError,),
        weight=0.5,
        grows=False,  # the standard library reads it, and it is the operator's own
    ),
    Target(
        "environment file",
        _InFile(_variables),
        (b"A=1\n# comment\nexport B='two words'\n\nC=\"\"\n", b"\xef\xbb\xbfA=1\r\nB=2\r\n"),
        (b"export ", b"A=", b"='", b"\n", b"\x85", b"\xe2\x80\xa8"),
        (ConfigurationError,),
        weight=0.5,
    ),
    Target(
        "password hash", _password_hash, (_HASH,), (b"$scrypt$", b"ln=", b",r=", b",p=", b"$"), (ValueError,)
    ),
    Target(
        "password file",
        _InFile(_users),
        (b"ann:" + _HASH + b"\nbob:" + _HASH + b"\n# nobody\n",),
        (b"ann:", b"$scrypt$", b"\n", b":"),
        (ConfigurationError,),
        weight=0.5,
    ),
)
