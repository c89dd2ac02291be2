import copy
import errno
import pickle
import socket
import ssl
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamed import errors
from tamed.errors import (
    AlreadyRunning,
    ApplicationFailed,
    ConfigurationError,
    DeadlinePassed,
    ExitStatus,
    MissingInput,
    PermissionRefused,
    ServiceFailed,
    SystemRefused,
    TamedError,
    Unavailable,
    exit_code,
    from_creation_error,
    from_os_error,
    reason,
    status_of,
)

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, TamedError)]


def os_error(number: int, filename: str | None = None) -> OSError:
    """Return the exception that Python raises for an error number."""
    return OSError(number, f"error {number}", filename)


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        (("it failed",), "it failed"),
        (("it failed", "no reason"), "it failed: no reason"),
        (("it failed", "no reason", "try again"), "it failed: no reason; try again"),
        (("it failed", "", "try again"), "it failed; try again"),
    ],
)
def test_an_error_is_a_sentence_of_what_why_and_remedy(parts: tuple[str, ...], sentence: str) -> None:
    """The last two parts may be left out."""
    error = TamedError(*parts)
    assert str(error) == sentence
    assert [error.what, error.why, error.remedy] == [*parts, "", ""][:3]


@given(st.text(), st.text(), st.text())
def test_an_error_is_one_line(what: str, why: str, remedy: str) -> None:
    """Whatever the parts hold, line breaks of any kind included, the sentence is one line."""
    assert len(str(TamedError(what, why, remedy)).splitlines()) <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_has_a_status(kind: type[TamedError]) -> None:
    """The status is one of sysexits.h, and never success."""
    assert kind.status in vars(ExitStatus).values()
    assert kind.status != ExitStatus.OK


@pytest.mark.parametrize(
    "error",
    [
        ConfigurationError("a", "b", "c"),
        DeadlinePassed(2.5),
        ServiceFailed("group/one", "start", ValueError("no")),
    ],
)
def test_an_error_can_be_copied_and_sent_to_another_process(error: TamedError) -> None:
    """The copy tells the same."""
    for again in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (type(again), str(again)) == (type(error), str(error))


def test_a_failed_service_tells_where_in_which_phase_and_why() -> None:
    """The parts are fields, too."""
    cause = KeyError("poem")
    failure = ServiceFailed("group/one", "run", cause)
    assert str(failure) == "service group/one failed in run: KeyError: 'poem'"
    assert (failure.path, failure.phase, failure.cause) == ("group/one", "run", cause)


def test_a_deadline_tells_its_seconds() -> None:
    """Whole seconds are shown as such."""
    assert (str(DeadlinePassed(30.0)), DeadlinePassed(0.5).seconds) == ("not done within 30 s", 0.5)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (AlreadyRunning("verse runs"), "verse runs"),
        (os_error(errno.ENOENT), f"error {errno.ENOENT}"),
        (os_error(errno.ENOENT, "poem.txt"), f"poem.txt: error {errno.ENOENT}"),
        (OSError("just text"), "OSError: just text"),
        (ValueError("two\nlines"), "ValueError: two lines"),
        (ValueError(), "ValueError"),
        (ExceptionGroup("a task group", [ValueError("one")]), "ValueError: one"),
        (
            ExceptionGroup("a", [ExceptionGroup("b", [ValueError("one"), KeyError(2)]), OSError()]),
            "ValueError: one (and 2 more)",
        ),
    ],
)
def test_a_reason_is_said_in_a_few_words(error: BaseException, told: str) -> None:
    """The words of the system, a path if there is one, or the exception's name and text."""
    assert reason(error) == told


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MissingInput("no poem"), 66),
        (os_error(errno.EADDRINUSE), 69),
        (os_error(errno.EACCES), 77),
        (os_error(errno.EIO), 71),
        (TimeoutError(), 70),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), 69),
        (ssl.SSLError(1, "wrong version number"), 70),
        (ValueError(), 70),
        (SystemExit(3), 3),
        (ServiceFailed("one", "start", os_error(errno.EPERM)), 77),
        (ServiceFailed("one", "run", SystemExit(5)), 5),
        (ServiceFailed("one", "run", ExceptionGroup("g", [Unavailable("no"), ValueError()])), 69),
    ],
)
def test_an_exception_stands_for_a_status(error: BaseException, status: int) -> None:
    """A failed service has the status of its cause."""
    assert status_of(error) == status


@pytest.mark.parametrize(
    ("code", "status"), [(None, 0), (0, 0), (7, 7), (256, 0), (-1, 255), ("why", 1), (True, 1)]
)
def test_an_exit_has_the_status_that_the_interpreter_would_give_it(
    code: str | int | None, status: int
) -> None:
    """None is success, a text is 1, and of a number the low byte counts."""
    assert exit_code(SystemExit(code)) == status


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOENT, MissingInput),
        (errno.EISDIR, MissingInput),
        (errno.EPERM, PermissionRefused),
        (errno.EADDRNOTAVAIL, Unavailable),
        (errno.ECONNREFUSED, Unavailable),
        (errno.EHOSTUNREACH, Unavailable),
        (errno.ETIMEDOUT, Unavailable),
        (errno.EIO, SystemRefused),
    ],
)
def test_what_the_system_said_becomes_an_error_of_ours(number: int, kind: type[TamedError]) -> None:
    """Its number says whose fault it is."""
    error = from_os_error("cannot read poem.txt", os_error(number, "poem.txt"), "give another one")
    assert type(error) is kind
    assert str(error) == f"cannot read poem.txt: error {number}; give another one"


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.EMFILE, "ulimit -n"), (errno.ENFILE, "fs.file-max"), (errno.EFBIG, "ulimit -f")],
)
@pytest.mark.parametrize("convert", [from_os_error, from_creation_error])
def test_a_limit_is_named_where_it_is_reached(
    number: int, remedy: str, convert: Callable[[str, OSError, str], TamedError]
) -> None:
    """Another file, or another folder, would not help."""
    error = convert("cannot read poem.txt", os_error(number, "poem.txt"), "give another one")
    assert type(error) is SystemRefused
    assert remedy in error.remedy


def test_an_os_error_of_python_code_has_its_own_words() -> None:
    """Without an error number it was not the system."""
    error = from_os_error("cannot connect", TimeoutError("too slow"))
    assert type(error) is ApplicationFailed
    assert str(error) == "cannot connect: TimeoutError: too slow"
