"""A network of its own, with nothing but a loopback interface that is up: ports that nobody else uses."""

import fcntl
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.unix.child import own_network, say, wait

_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1  # netdevice(7)


@contextmanager
def network() -> Iterator[list[str]]:
    """Make one; yield the command that runs another command in it. Only root can."""
    holder = subprocess.Popen(
        [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline()
        yield ["nsenter", f"--net=/proc/{holder.pid}/ns/net"]
        holder.stdin.close()


def main() -> None:
    """Hold a network until the standard input ends."""
    own_network()
    with socket.socket() as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", _IFF_UP))
    say("up")
    wait()


if __name__ == "__main__":
    main()
