import asyncio
import os
import signal
import socket
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tamed._os.identity import Identity
from tamed.builtin.exec import Notifies
from tamed.builtin.inetd import connection_variables
from tamed.builtin.programs.options import Command, Signal, Umask
from tamed.builtin.programs.process import Ending, Lines
from tamed.builtin.programs.shim import Program

WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(st.lists(WORDS, min_size=1).filter(lambda words: words[0]))
def test_a_command_that_is_written_is_read_the_same(words: list[str]) -> None:
    """Whatever the words are."""
    assert Command.parse(str(Command(words))) == Command(words)


@given(st.text())
def test_any_text_is_a_command_or_a_mistake_that_is_reported(text: str) -> None:
    """Nothing else is raised."""
    try:
        command = Command.parse(text)
    except ValueError as error:
        told = str(error)
    else:
        told = f"expected a command, got {command}"
    assert told.startswith("expected a command")


def test_only_a_program_with_a_relative_path_starts_at_the_folder() -> None:
    """One without a slash is looked for in PATH, and arguments are the program's own business."""
    folder = Path("/folder")
    assert Command.parse("./a b/c").relative_to(folder) == (f"{folder}/a", "b/c")
    assert Command.parse("a b/c").relative_to(folder) == ("a", "b/c")
    assert Command.parse("/bin/a").relative_to(folder) == ("/bin/a",)


@pytest.mark.parametrize("text", ["TERM", "SIGTERM", "term", "15", " sigterm "])
def test_a_signal_is_a_name_or_a_number(text: str) -> None:
    """With or without its SIG."""
    assert int(Signal.parse(text)) == int(signal.SIGTERM)
    assert str(Signal.parse(text)) == "TERM"


@pytest.mark.parametrize(
    ("text", "words"), [("TREM", "did you mean 'TERM'"), ("0", "got 0"), ("999", "got 999"), ("", "got ''")]
)
def test_what_is_no_signal_is_refused(text: str, words: str) -> None:
    """With the nearest one."""
    with pytest.raises(ValueError, match=words):
        Signal.parse(text)


@given(st.integers(0, 0o777))
def test_a_umask_is_octal(mode: int) -> None:
    """In text and back."""
    assert Umask.parse(str(Umask(mode))).mode == mode


@pytest.mark.parametrize("text", ["", "8", "1000", "00027", "-1", "0o27", "7 7"])
def test_what_is_no_umask_is_refused(text: str) -> None:
    """Beyond 0777 too."""
    with pytest.raises(ValueError, match="octal"):
        Umask.parse(text)


@given(
    st.lists(WORDS, min_size=1),
    st.dictionaries(WORDS, WORDS),
    st.none() | st.builds(Identity, st.integers(), st.integers(), st.tuples(st.integers()), WORDS),
)
def test_a_program_goes_to_its_shim_on_one_line(
    words: list[str], environment: dict[str, str], identity: Identity | None
) -> None:
    """And arrives as it was."""
    program = Program(tuple(words), environment, identity=identity, limits={"nofile": 1}, umask=0)
    line = program.encode()
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert Program.decode(line) == program


@given(st.lists(st.binary(max_size=60)), st.integers(4, 20))
@example([b"123456\r", b"\n"], 6)
def test_lines_do_not_depend_on_how_bytes_come(pieces: list[bytes], limit: int) -> None:
    """Lines in pieces are those of all bytes at once, short enough, and without control characters."""
    apart, together = Lines(limit), Lines(limit)
    found = [line for piece in pieces for line in apart.feed(piece)] + apart.finish()
    assert found == together.feed(b"".join(pieces)) + together.finish()
    assert not any(set(line) & set(map(chr, range(32))) - {"\t"} for line in found)
    assert all(len(line.removesuffix(" [...]")) <= 4 * limit for line in found)


@given(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1), st.integers(4, 20))
def test_long_lines_are_not_cut_within_a_character(text: str, limit: int) -> None:
    """The pieces are the line."""
    reader = Lines(limit)
    pieces = reader.feed(text.encode() + b"\n")
    assert "".join(piece.removesuffix(" [...]") for piece in pieces) == text
    assert all(piece.endswith(" [...]") for piece in pieces[:-1])


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "it ended with status 0"),
        (3 << 8, "it ended with status 3"),
        (9, "it was ended by SIGKILL"),
        (signal.SIGRTMIN + 1, f"it was ended by signal {signal.SIGRTMIN + 1}"),
    ],
)
def test_an_ending_is_reported_in_words(status: int, words: str) -> None:
    """From the wait status."""
    assert str(Ending(os.waitstatus_to_exitcode(status))) == words


def test_a_program_is_given_the_addresses_of_its_connection() -> None:
    """As by systemd and by UCSPI; for a unix socket there is not much to tell."""
    assert connection_variables(("::1", 25, 0, 0), ("::2", 4711, 0, 0)) == {
        "PROTO": "TCP",
        "REMOTE_ADDR": "::2",
        "REMOTE_HOST": "::2",
        "REMOTE_PORT": "4711",
        "TCPREMOTEIP": "::2",
        "TCPREMOTEPORT": "4711",
        "TCPLOCALIP": "::1",
        "TCPLOCALPORT": "25",
    }
    assert connection_variables("/run/x.sock", "") == {"PROTO": "UNIX"}


@pytest.mark.anyio
async def test_messages_of_other_users_do_not_count() -> None:
    """Any process may write to the socket, but the kernel gives the sender's credentials."""
    notifies = Notifies()
    for uids, is_ready in (({os.geteuid() + 1}, False), ({os.geteuid()}, True)):
        address = notifies.begin(uids)["NOTIFY_SOCKET"]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect("\0" + address[1:])
            sender.send(b"STATUS=\xff\nREADY=1\n")
        if is_ready:
            await notifies.wait()
        else:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(notifies.wait(), 0.05)
        assert bool(notifies.status) is is_ready
        notifies.end()
        notifies.end()
