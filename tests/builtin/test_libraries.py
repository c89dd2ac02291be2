"""What services in the box use of their libraries beyond what those document."""

import inspect
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aioftp
import asyncssh
import pytest
import telnetlib3
from packaging.requirements import Requirement

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]

NAMES: list[tuple[str, Any, str]] = [
    ("aioftp", aioftp.Server(), "block_size commands_mapping path_io_factory"),
    ("aioftp", aioftp.Server, "get_paths build_list_mtime build_list_string build_mlsx_string"),
    (
        "aioftp",
        aioftp.Server,
        "abor appe cdup cwd dele epsv list mkd mlsd mlst pass_ pasv pbsz prot pwd quit",
    ),
    ("aioftp", aioftp.Server, "rest retr rmd rnfr rnto stor syst type user"),
    ("aioftp", aioftp.Connection, "__delattr__ __getattr__ __setattr__"),
    ("aioftp", aioftp.Connection(), "future"),
    ("aioftp", aioftp.AbstractPathIO, "_open exists is_dir is_file stat list mkdir rmdir unlink rename"),
    ("aioftp", aioftp.AbstractPathIO, "seek read write close"),
    ("aioftp", aioftp.ThrottleStreamIO, "read write close __aexit__"),
    ("aioftp", aioftp.User(), "home_path base_path get_permissions"),
    ("asyncssh", asyncssh.SSHServerConnection, "abort close connection_made data_received disconnect"),
    ("asyncssh", asyncssh.SSHServerConnection, "eof_received get_extra_info set_authorized_keys"),
    ("asyncssh", asyncssh.SSHServer, "auth_completed begin_auth connection_lost connection_made"),
    ("asyncssh", asyncssh.SSHServer, "password_auth_supported session_requested validate_password"),
    ("asyncssh", asyncssh.SSHServerSession, "break_received connection_lost connection_made data_received"),
    ("asyncssh", asyncssh.SSHServerSession, "eof_received exec_requested pause_writing pty_requested"),
    ("asyncssh", asyncssh.SSHServerSession, "resume_writing session_started shell_requested"),
    ("asyncssh", asyncssh.SSHServerSession, "signal_received soft_eof_received"),
    ("asyncssh", asyncssh.SSHServerChannel, "exit is_closing pause_reading resume_reading write"),
    ("asyncssh", asyncssh.SSHLineEditorChannel, "clear_input"),
    ("telnetlib3", telnetlib3.BaseServer, "begin_negotiation connection_lost connection_made data_received"),
    ("telnetlib3", telnetlib3.BaseServer, "eof_received"),
    ("telnetlib3", telnetlib3.TelnetWriter, "drain handle_do handle_subnegotiation iac set_iac_callback"),
    ("telnetlib3", telnetlib3.TelnetWriter, "send_iac slc_simulated write"),
    (
        "telnetlib3",
        telnetlib3.TelnetWriter(None, None, server=True),  # type: ignore[arg-type]
        "always_dont always_wont compression pending_option",
    ),
    ("telnetlib3", telnetlib3.TelnetReader, "exception feed_data feed_eof set_exception"),
]

PARAMETERS: list[tuple[str, type, str]] = [
    ("aioftp", aioftp.Server, "path_io_factory block_size"),
    ("aioftp", aioftp.AbstractPathIO, "timeout connection"),
    ("aioftp", aioftp.ThrottleStreamIO, "reader writer throttles timeout"),
    ("asyncssh", asyncssh.SSHServerConnection, "loop options"),
    ("telnetlib3", telnetlib3.BaseServer, "encoding reader_factory writer_factory"),
]

LIBRARIES = ["aioftp", "asyncssh", "telnetlib3"]


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_has_what_is_used_of_it(library: str) -> None:
    """Each name exists, and each parameter; a newer release may lack one before its upper bound is raised."""
    missing = [
        f"{_name(thing)}.{name}"
        for owner, thing, names in NAMES
        for name in names.split()
        if owner == library and not hasattr(thing, name)
    ]
    missing += [
        f"{_name(thing)}({name}=)"
        for owner, thing, names in PARAMETERS
        for name in names.split()
        if owner == library and name not in _parameters(thing)
    ]
    assert missing == [], (
        f"{library} {version(library)} has none of this: mend its service, or lower its bound"
    )


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_has_an_upper_bound(library: str) -> None:
    """A release that may break a service is not installed before it was tried."""
    wanted = [Requirement(text) for extra in PROJECT["optional-dependencies"].values() for text in extra]
    (requirement,) = (each for each in wanted if each.name == library)
    assert any(each.operator == "<" for each in requirement.specifier)


def _name(thing: Any) -> str:
    return (thing if inspect.isclass(thing) else type(thing)).__name__


def _parameters(thing: type) -> set[str]:
    """Return the parameters of a class, and those of its bases, to which it may pass keywords on."""
    return {name for each in thing.__mro__[:-1] for name in inspect.signature(each).parameters}
