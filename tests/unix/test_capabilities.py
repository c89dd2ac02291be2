"""Names of capabilities, and the sets of this process."""

import re
from pathlib import Path

import pytest

from tamed.unix.privileges import CAPABILITIES, Capability, capability_sets
from tests.unix.child import status_of

HEADER = Path("/usr/include/linux/capability.h")


@pytest.mark.parametrize("text", ["CAP_NET_BIND_SERVICE", "cap_net_bind_service", " NET_BIND_SERVICE "])
def test_names(text: str) -> None:
    """A capability is read in any case, with or without its prefix, and written as the manual does."""
    assert Capability.parse(text) == 10
    assert str(Capability.parse(text)) == "CAP_NET_BIND_SERVICE"


def test_unknown_name() -> None:
    """An unknown one is named with its nearest neighbour."""
    with pytest.raises(
        ValueError, match=r"'CAP_NET_BIND': expected a capability .* did you mean 'CAP_NET_ADMIN'"
    ):
        Capability.parse("CAP_NET_BIND")
    with pytest.raises(ValueError, match=r"such as CAP_NET_BIND_SERVICE$"):
        Capability.parse("11111111")


@pytest.mark.skipif(not HEADER.exists(), reason="needs the kernel's headers")
def test_numbers_are_the_kernel_s() -> None:
    """Every capability has the name and number that the kernel's header gives it."""
    found = re.findall(r"^#define CAP_([A-Z_]+)\s+(\d+)$", HEADER.read_text(), re.MULTILINE)
    known = {name: int(number) for name, number in found}
    ours = {name: number for number, name in enumerate(CAPABILITIES)}
    assert {name: number for name, number in known.items() if number <= max(ours.values())} == ours


def test_sets_are_what_the_kernel_shows() -> None:
    """The sets of this thread are those in ``/proc``."""
    status = status_of("thread-self")
    shown = [status[name] for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")]
    assert [f"{sum(1 << one for one in members):016x}" for members in capability_sets()] == shown
