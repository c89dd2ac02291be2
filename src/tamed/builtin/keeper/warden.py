"""The warden: the process that forks a keeper for each program.

It is run as ``python -m tamed.builtin.keeper.warden NAME``, with its control socket on descriptor 0; the
name is for those who look at processes. Each message on the socket is one byte with descriptors: a keeper's
channel, and the descriptors of its program. At the end of the socket it waits for its keepers, and ends.
"""

import os
import signal
import socket
import traceback
from typing import Final, NoReturn

from tamed._fork import receive_descriptors
from tamed.builtin.keeper._children import ChildWatch, children, reap, send
from tamed.builtin.keeper._keeper import keep
from tamed.builtin.keeper._prctl import become_subreaper

__all__ = ["main"]

_IGNORED: Final = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_MOST: Final = 253  # descriptors in a message: SCM_MAX_FD of unix(7)


def main() -> None:
    """Run as a warden."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # what Tamed's own parent left open is not for programs
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    become_subreaper()
    with socket.socket(fileno=os.dup(0)) as control:
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        _Warden(control).work()


class _Warden:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._watch = ChildWatch()
        self._keepers: set[int] = set()

    def work(self) -> None:
        """Fork keepers until nobody wants one any more, and wait until those have ended."""
        is_open = True
        while is_open or self._keepers:
            if self._watch.wait(self._control if is_open else None, None):
                is_open = self._take_order()
            self._reap()

    def _take_order(self) -> bool:
        """Fork a keeper for the next message; return False if there is none."""
        data, descriptors = receive_descriptors(self._control, 1, _MOST)
        if not data:
            return False
        try:
            pid = os.fork()
        except OSError:  # the channel's end says it
            pid = -1
        if pid == 0:
            self._become_keeper(descriptors)
        if pid > 0:
            self._keepers.add(pid)
        for descriptor in descriptors:
            os.close(descriptor)
        return True

    def _become_keeper(self, descriptors: list[int]) -> NoReturn:
        status = 1
        try:
            self._watch.close()
            self._control.close()
            channel, *others = descriptors
            keep(socket.socket(fileno=channel), others)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def _reap(self) -> None:
        try:
            for pid, status in reap():
                self._keepers.discard(pid)
                if status:
                    self._end_orphans()
        except ChildProcessError:
            self._keepers.clear()

    def _end_orphans(self) -> None:
        """Kill what a keeper that was killed has left: it is our child now, and nobody else's."""
        for pid in children() - self._keepers:
            send(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
