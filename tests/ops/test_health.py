"""What probes say of a daemon's state."""

from typing import Any

import pytest

from tamed.ops.health import PROBES, report

SOUND = {"phase": "running", "is_draining": False, "ready": 2, "wanted": 2, "beats": True, "last_error": ""}


@pytest.mark.parametrize(
    ("facts", "passing"),
    [
        ({}, ["livez", "readyz", "startupz"]),
        ({"phase": "starting", "ready": 0, "beats": False}, ["livez"]),
        ({"phase": "stopping", "is_draining": True, "beats": False}, ["livez", "startupz"]),
        ({"ready": 1}, ["livez", "readyz", "startupz"]),
        ({"ready": 0, "last_error": "worker 7 failed"}, ["livez", "startupz"]),
        ({"ready": 0, "beats": False}, ["startupz"]),
    ],
    ids=["sound", "starting", "stopping", "degraded", "failing", "dead"],
)
def test_probes_pass_in_the_states_in_which_they_must(facts: dict[str, Any], passing: list[str]) -> None:
    """A daemon lives while it starts and stops, and is ready while one worker is and it does not stop."""
    found = [name for name, probe in PROBES.items() if report(name, probe(SOUND | facts), verbose=False)[0]]
    assert found == passing


def test_failed_probe_lists_its_checks() -> None:
    """The text of a failed probe has a line for each check, with the reason of the one that failed."""
    text = report("readyz", PROBES["readyz"](SOUND | {"ready": 0, "last_error": "no poem"}), verbose=False)[1]
    assert text == (
        "[+]supervisor ok\n[+]started ok\n[+]not-stopping ok\n"
        "[-]workers failed: none of 2 is ready; last error: no poem\nreadyz check failed\n"
    )
