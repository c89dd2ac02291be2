"""What the tests of process handles do in processes of their own."""

import signal

from tamed._os.identity import Identity
from tamed.errors import TamedError
from tamed.unix.privileges import drop_privileges
from tamed.unix.process import ProcessHandle
from tests.unix.child import say, wait


def obey() -> None:
    """Say when ready; end at SIGTERM by its default action."""
    say("here")
    wait()


def signal_as(user: str, pid: int) -> str:
    """Try to signal a process as somebody else."""
    drop_privileges(Identity.resolve(user))
    handle = ProcessHandle.open(pid)
    assert handle is not None
    try:
        handle.signal(signal.SIGTERM)
    except TamedError as error:
        return f"{type(error).__name__}: {error}"
    return ""
