"""The limit of open files."""

from tests.unix import privileges_child
from tests.unix.process import call


def test_limit_of_open_files() -> None:
    """The limit goes down and up again as far as the hard one, which is named when it is too low."""
    hard, seen, kind, message = call(privileges_child.limit_files, 100, 5000)
    assert seen == [[100, hard], [200, 200]]
    assert kind == "PermissionRefused"
    assert message.startswith(
        "cannot have 5000 open files: at most 200 are allowed here; use fewer, or raise"
    )


def test_more_than_the_kernel_allows() -> None:
    """Beyond the kernel's own limit root is refused too, and the message names that limit."""
    message = call(privileges_child.limit_too_high)
    assert message.startswith(f"cannot have {2**62} open files: at most ")
    assert "/proc/sys/fs/nr_open is " in message
