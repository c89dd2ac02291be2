"""What probes say of a daemon's state."""

from typing import Any

import pytest

from tamed.ops.health import PROBES, report

SOUND = {"phase": "running", "is_draining": False, "ready": 2, "wanted": 2, "beats": True, "last_error": ""}
SOUND |= {"checks": []}


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


@pytest.mark.parametrize(
    ("gates", "asked", "why", "line"),
    [
        (True, 2, "", "[+]check/db ok"),
        (True, 2, "no answer", "[-]check/db failed: no answer"),
        (True, 0, "", "[-]check/db failed: there is no result yet"),
        (False, 2, "no answer", "[!]check/db degraded: no answer"),
    ],
)
def test_check_of_a_service_gates_readiness_only_if_it_says_so(
    gates: bool, asked: int, why: str, line: str
) -> None:
    """One that does not is listed as degraded, and the daemon is ready; liveness never depends on it."""
    facts = SOUND | {"checks": [{"name": "db", "gates": gates, "asked": asked, "failing": 1, "why": why}]}
    passes, text = report("readyz", PROBES["readyz"](facts), verbose=True)
    assert passes == (not line.startswith("[-]"))
    assert line in text.splitlines()
    assert report("livez", PROBES["livez"](facts), verbose=False)[0]


def test_failed_probe_lists_its_checks() -> None:
    """The text of a failed probe has a line for each check, with the reason of the one that failed."""
    text = report("readyz", PROBES["readyz"](SOUND | {"ready": 0, "last_error": "no poem"}), verbose=False)[1]
    assert text == (
        "[+]supervisor ok\n[+]started ok\n[+]not-stopping ok\n"
        "[-]workers failed: none of 2 is ready; last error: no poem\nreadyz check failed\n"
    )


def test_check_that_is_excluded_does_not_count() -> None:
    """It is listed so; and a name that no check has is reported, since it may be misspelled."""
    checks = PROBES["readyz"](SOUND | {"ready": 0})
    passes, text = report("readyz", checks, verbose=True, excluded=["workers"])
    assert passes
    assert text.endswith("[+]workers excluded: ok\nreadyz check passed\n")
    passes, text = report("readyz", checks, verbose=False, excluded=["worker"])
    assert not passes
    assert "warn: no check has this name, so it is not excluded: worker\n" in text
