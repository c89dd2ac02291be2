import asyncio
import logging
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamed.errors import ConfigurationError, MissingInput
from tamed.passwords import PasswordFile, PasswordHash, hash_password

CHEAP = PasswordHash(1, 1, 1, b"saltsalt", b"digestdigestdigest")


@pytest.fixture
def anyio_backend() -> str:
    """Hashing is done in threads, with any event loop."""
    return "asyncio"


def file_of(folder: Path, text: str) -> PasswordFile:
    """Make a password file that only its owner may read."""
    path = folder / "users"
    path.write_text(text)
    path.chmod(0o600)
    return PasswordFile(path)


@pytest.mark.anyio
async def test_a_user_with_the_right_password_is_known(tmp_path: Path) -> None:
    """And nobody else: not with another password, not by another name."""
    users = file_of(tmp_path, f"# the poets\n\njohn:{hash_password('busy old fool')}\r\n")
    assert not await users.verify("john", "busy old fool")
    users.load()
    assert await users.verify("john", "busy old fool")
    assert not await users.verify("john", "unruly sun")
    assert not await users.verify("john", "")
    assert not await users.verify("anne", "busy old fool")


@pytest.mark.anyio
async def test_a_password_of_any_bytes(tmp_path: Path) -> None:
    """Bytes that are no text, as a client may send them, are a password like any other."""
    password = b"\xff\xfe caf\xc3\xa9".decode("utf-8", "surrogateescape")
    users = file_of(tmp_path, f"john:{hash_password(password)}")
    users.load()
    assert await users.verify("john", password)
    assert not await users.verify("john", "\ud800")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("john", "line 1: expected NAME:HASH"),
        (f":{CHEAP}", "line 1: expected NAME:HASH"),
        ("\n\njohn:secret", "line 3: expected a hash such as $scrypt$ln=15,r=8,p=1$SALT$DIGEST"),
        (f"john:{CHEAP}\njohn:{CHEAP}", "line 2: user 'john' is listed twice"),
        (f"john:{CHEAP}".replace("ln=1,", "ln=30,"), "line 1: the cost is out of range (ln=30, r=1, p=1)"),
        (f"john:{CHEAP}".replace("ln=1,", "ln=0,"), "line 1: the cost is out of range (ln=0, r=1, p=1)"),
        ("john:$scrypt$ln=1,r=1,p=1$AAAAAAAAA$" + "A" * 22, "line 1: the salt or digest is not base64"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, why: str) -> None:
    """With its number and what was expected; the users are those of the last time."""
    users = file_of(tmp_path, text)
    with pytest.raises(ConfigurationError) as caught:
        users.load()
    assert why in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """Not there, and not text."""
    with pytest.raises(MissingInput, match="cannot read the password file"):
        PasswordFile(tmp_path / "nowhere").load()
    (tmp_path / "bytes").write_bytes(b"john:\xff")
    with pytest.raises(ConfigurationError, match="it is not UTF-8"):
        PasswordFile(tmp_path / "bytes").load()


def test_a_file_that_everybody_may_read_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Hashes can be guessed at by whoever has them."""
    users = file_of(tmp_path, f"john:{CHEAP}")
    users.path.chmod(0o644)
    users.load()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_an_empty_password_is_none() -> None:
    """It is refused before it is hashed."""
    with pytest.raises(ValueError, match="the password is empty"):
        hash_password("")


def test_hashes_are_those_of_rfc_7914() -> None:
    """The second test vector of the RFC's section 12: another program's hashes are understood."""
    digest = (
        "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162"
        "2eaf30d92e22a3886ff109279d9830dac727afb94a83ee6d8360cbdfa2cc0640"
    )
    known = PasswordHash(10, 8, 16, b"NaCl", bytes.fromhex(digest))
    assert known.fits("password")
    assert not known.fits("Password")


@given(
    st.builds(
        PasswordHash,
        st.integers(1, 16),
        st.integers(1, 8),
        st.integers(1, 16),
        st.binary(min_size=6, max_size=96),
        st.binary(min_size=17, max_size=96),
    )
)
def test_a_hash_is_read_as_it_was_written(hashed: PasswordHash) -> None:
    """Whatever its parts."""
    assert PasswordHash.parse(str(hashed)) == hashed


@given(st.text() | st.from_regex(r"\$scrypt\$ln=[0-9]+,r=[0-9]+,p=[0-9]+\$[A-Za-z0-9+/=]*\$[A-Za-z0-9+/=]*"))
def test_no_text_breaks_the_reader(text: str) -> None:
    """It is a hash, or a ValueError."""
    with suppress(ValueError):
        PasswordHash.parse(text)


def test_a_line_is_made_from_the_standard_input(tmp_path: Path) -> None:
    """By a command that has no password among its arguments."""
    command = [sys.executable, "-P", "-m", "tamed", "password", "john"]
    made = subprocess.run(command, input="busy old fool\n", capture_output=True, text=True, check=True)
    users = file_of(tmp_path, made.stdout)
    users.load()
    assert asyncio.run(users.verify("john", "busy old fool"))


@pytest.mark.parametrize(
    ("arguments", "answer", "said"),
    [
        ([], "secret", "missing argument 'NAME'"),
        (["a:b"], "secret", "user 'a:b': expected printable letters without a colon"),
        (["john"], "\n", "no password: it is empty"),
    ],
)
def test_no_line_is_made_of_nothing(arguments: list[str], answer: str, said: str) -> None:
    """A mistake is one line on stderr, and status 64."""
    command = [sys.executable, "-P", "-m", "tamed", "password", *arguments]
    made = subprocess.run(command, input=answer, capture_output=True, text=True, check=False)
    assert (made.returncode, made.stdout) == (64, "")
    assert said in made.stderr
    assert made.stderr.count("\n") == 1
