"""What the tests of privileges do in processes of their own, as root."""

import os
import resource
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from tamed._os.identity import Identity
from tamed._os.limits import limit_open_files
from tamed.errors import TamedError
from tamed.unix.privileges import (
    Capability,
    _can_go_back,
    _what_is_wrong,
    capability_sets,
    change_root,
    drop_privileges,
    set_capabilities,
)
from tests.unix.child import own_network, status_of

SEEN = ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs")


def drop(user: str, group: str, keep: list[str]) -> dict[str, list[str]]:
    """Give up root; return what the kernel says of this process and of a program that it executes."""
    identity = Identity.resolve(user, group)
    left = drop_privileges(identity, keep=[Capability.parse(name) for name in keep])
    executed = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
    of_executed = dict(line.split(":", 1) for line in executed.splitlines())
    return {
        "left": [str(number) for number in sorted(left)],
        **{name: [status_of()[name], of_executed[name].strip()] for name in SEEN},
    }


def outcome(call: Callable[[], object]) -> str:
    """Return the name of what a call raises."""
    try:
        call()
    except (OSError, TamedError) as error:
        return type(error).__name__
    return "done"


def try_to_regain(user: str) -> dict[str, str]:
    """Give up root, and try every way back."""
    drop_privileges(Identity.resolve(user))
    return {
        "setuid": outcome(lambda: os.setuid(0)),
        "seteuid": outcome(lambda: os.seteuid(0)),
        "setresuid": outcome(lambda: os.setresuid(-1, 0, -1)),
        "setgid": outcome(lambda: os.setgid(0)),
        "setgroups": outcome(lambda: os.setgroups([0])),
        "chroot": outcome(lambda: os.chroot("/")),
        "again": outcome(lambda: drop_privileges(Identity.resolve("root"))),
        "same": outcome(lambda: drop_privileges(Identity.resolve(user))),
        "capabilities": outcome(lambda: set_capabilities([Capability.parse("NET_RAW")])),
        "keep": outcome(lambda: drop_privileges(Identity.resolve(user), keep=[Capability.parse("NET_RAW")])),
    }


def bind_low_port(user: str, keep: list[str]) -> str:
    """Give up root, and bind a port below 1024."""
    own_network()
    drop_privileges(Identity.resolve(user), keep=[Capability.parse(name) for name in keep])

    def bind() -> None:
        with socket.socket() as listener:
            listener.bind(("0.0.0.0", 80))

    return outcome(bind)


def drop_without(missing: list[str], user: str, keep: list[str]) -> list[object]:
    """Give up root in a container that does not give root everything."""
    permitted = capability_sets().permitted
    set_capabilities(permitted - {Capability.parse(name) for name in missing})
    try:
        left = drop_privileges(Identity.resolve(user), keep=[Capability.parse(name) for name in keep])
    except TamedError as error:
        return [type(error).__name__, str(error)]
    sets = capability_sets()
    return [sorted(left) == sorted(sets.bounding), sorted(sets.permitted), status_of()["NoNewPrivs"]]


def drop_beside_thread(user: str) -> str:
    """Try to give up root while there is another thread."""
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    try:
        drop_privileges(Identity.resolve(user))
    except TamedError as error:
        return str(error)
    finally:
        over.set()
        thread.join()
    return ""


def become_root_again() -> list[str]:
    """Set the group only, or nothing, as root."""
    drop_privileges(Identity.resolve("root"))
    before = status_of()
    drop_privileges(Identity.resolve("", "daemon"))
    after = status_of()
    return [before["Uid"], before["Gid"], after["Uid"], after["Gid"], after["NoNewPrivs"]]


def see_what_is_wrong(user: str) -> list[str]:
    """Return what the proof says at each stage of giving root up by hand."""
    identity = Identity.resolve(user)
    said = [_what_is_wrong(identity, [])]
    os.setgroups(identity.groups)
    os.setresgid(identity.gid, identity.gid, identity.gid)
    os.setresuid(identity.uid, identity.uid, 0)
    said += [_what_is_wrong(identity, []), str(_can_go_back(identity))]
    return said


def see_capabilities_left(user: str) -> list[str]:
    """Return what the proof says while capabilities, or new ones, could be had."""
    identity = Identity.resolve(user)
    drop_privileges(identity, keep=[Capability.parse("NET_RAW")])
    return [_what_is_wrong(identity, []), _what_is_wrong(identity, [Capability.parse("NET_RAW")])]


def leave_new_privileges(user: str) -> str:
    """Return what the proof says when everything was done but ``no_new_privs``."""
    identity = Identity.resolve(user)
    os.setgroups(identity.groups)
    os.setresgid(identity.gid, identity.gid, identity.gid)
    os.setresuid(identity.uid, identity.uid, identity.uid)
    return _what_is_wrong(identity, [])


def go_into(root: str, user: str) -> list[object]:
    """Change the root directory, as root and as somebody else, and to what is none."""
    before = outcome(lambda: change_root(Path(root, "none")))
    change_root(Path(root))
    seen = [sorted(entry.name for entry in Path("/").iterdir()), str(Path.cwd())]
    drop_privileges(Identity(65534, 65534, (65534,)))
    return [before, *seen, outcome(lambda: change_root(Path("/")))]


def access(directory: str, user: str) -> list[object]:
    """Return whether a user may write in a directory, and who this process is after the question."""
    may = Identity.resolve(user).can_write_in(Path(directory))
    return [may, os.geteuid(), os.getegid()]


def access_as(user: str, other: str, directory: str) -> list[object]:
    """Ask about others, as somebody who cannot become them."""
    drop_privileges(Identity.resolve(user))
    try:
        about_other: object = Identity.resolve(other).can_write_in(Path(directory))
    except TamedError as error:
        about_other = f"{type(error).__name__}: {error}"
    return [Identity.resolve().can_write_in(Path(directory)), about_other]


def limit_files(soft: int, more: int) -> list[object]:
    """Lower the limit of open files, raise it, and raise it beyond the hard one without the right to."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limit_open_files(soft)
    seen = [resource.getrlimit(resource.RLIMIT_NOFILE)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, soft * 2))
    if os.geteuid() == 0:
        set_capabilities([])
    limit_open_files(soft * 2)
    seen.append(resource.getrlimit(resource.RLIMIT_NOFILE))
    try:
        limit_open_files(more)
    except TamedError as error:
        return [hard, seen, type(error).__name__, str(error)]
    return []


def limit_too_high() -> str:
    """Ask for more files than any kernel lets a process have."""
    try:
        limit_open_files(2**62)
    except TamedError as error:
        return str(error)
    return ""
