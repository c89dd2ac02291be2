"""Timers by the time that passes while the machine is suspended, too."""

import os
import select
import signal

import pytest

from tamed._os.syscalls import BootAlarm, KillTimer, boot_time
from tests.patience import PATIENCE


@pytest.mark.parametrize("is_stopped", [False, True])
def test_timer_kills_its_process(is_stopped: bool) -> None:
    """A process is killed at the time that was set last, also if it is stopped."""
    pid = os.fork()
    if not pid:
        timer = KillTimer()
        timer.set(boot_time() + 10 * PATIENCE)
        timer.set(boot_time() + 0.05)
        if is_stopped:
            os.kill(os.getpid(), signal.SIGSTOP)
        signal.pause()
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def test_closed_timer_kills_nobody() -> None:
    """A process that closed its timer survives; so does a child of a process with a timer."""
    pid = os.fork()
    if not pid:
        timer = KillTimer()
        timer.set(boot_time() + 10 * PATIENCE)
        timer.close()
        another = KillTimer()
        another.set(boot_time() + 10 * PATIENCE)
        child = os.fork()
        os._exit(0 if not child else os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_alarm_is_readable_at_its_time() -> None:
    """A time that has passed is due at once; one that is set anew, or to never, is not."""
    alarm = BootAlarm()
    try:
        alarm.set(boot_time())
        assert select.select([alarm], [], [], PATIENCE)[0] == [alarm]
        alarm.set(boot_time() + 10 * PATIENCE)
        assert select.select([alarm], [], [], 0)[0] == []
        alarm.set(0.0)
        assert select.select([alarm], [], [], PATIENCE)[0] == [alarm]
        alarm.set(None)
        assert select.select([alarm], [], [], 0)[0] == []
    finally:
        alarm.close()
