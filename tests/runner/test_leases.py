"""The leases of a machine, by hand: who is killed, and when."""

from typing import Any

import pytest

from tamed.ipc.message import InvalidMessage, Message
from tamed.supervisor.roles import Leases, Standing


class Machine:
    """What leases decide, written down."""

    def __init__(self) -> None:
        self.now = 50.0
        self.alarms: list[float | None] = []
        self.killed: list[tuple[int, str]] = []
        self.states: list[tuple[str, str]] = []
        self.confirmed: list[tuple[int, Message]] = []
        self.leases = self.make()

    def make(self) -> Leases:
        return Leases(
            lambda: self.now,
            set_alarm=self.alarms.append,
            kill=lambda pid, role: self.killed.append((pid, role)),
            changed=self.change,
            confirm=lambda pid, message: self.confirmed.append((pid, message)),
        )

    def change(self, role: str, standing: Standing) -> None:
        self.states.append((role, standing.state))

    def report(self, pid: int = 7, number: int = 1, **facts: Any) -> None:
        message = {"phase": "leading", "token": 3, "kill_at": 60.0, "trouble": "", "holder": "", **facts}
        self.leases.reported(pid, {"lease": "cron", "number": number, **message})


@pytest.fixture
def machine() -> Machine:
    """A machine whose worker 7 campaigns for the role cron."""
    one = Machine()
    one.leases.granted("cron", 7, 1)
    return one


def test_holder_that_overruns_is_killed(machine: Machine) -> None:
    """The alarm is set to when the holder must have ended, moves with each renewal, and kills once."""
    machine.report()
    machine.now = 53.0
    machine.report(kill_at=63.0)
    assert machine.alarms == [60.0, 63.0]
    machine.now = 62.9
    machine.leases.look()
    assert machine.killed == []
    machine.now = 63.0
    machine.leases.look()
    machine.leases.look()
    assert machine.killed == [(7, "cron")]
    assert machine.alarms == [60.0, 63.0, 63.0]


def test_new_lease_is_confirmed_once(machine: Machine) -> None:
    """A worker may use a lease when its supervisor has said that it knows of it; renewals need none."""
    machine.report()
    machine.report(kill_at=63.0)
    assert machine.confirmed == [(7, {"role": "cron", "number": 1, "confirmed": 3})]
    assert machine.leases.standings["cron"].transitions == 1


def test_states_follow_the_reports(machine: Machine) -> None:
    """A role is held, resigning, on another machine or vacant; the time of the last is added up."""
    machine.now = 52.0
    machine.report()
    machine.report(phase="resigning")
    machine.report(phase="resigning", kill_at=None)
    machine.now = 55.0
    machine.report(phase="standby", kill_at=None, token=0, holder="web2")
    standing = machine.leases.standings["cron"]
    assert (standing.vacant, standing.token, standing.holder, standing.is_held) == (5.0, 3, "web2", False)
    machine.report(phase="standby", kill_at=None, token=0, trouble="no answer")
    states = ["held", "resigning", "vacant", "standby", "vacant"]
    assert machine.states == [("cron", state) for state in states]
    assert machine.alarms == [60.0, None]


def test_reports_of_others_are_ignored(machine: Machine) -> None:
    """A report of another worker, or about a former campaign, changes nothing."""
    machine.report(pid=8)
    machine.report(number=2)
    machine.leases.reported(7, {"lease": "mail", "number": 1})
    assert (machine.alarms, machine.states) == ([], [])


def test_end_of_the_worker_ends_its_lease(machine: Machine) -> None:
    """A worker that has ended is not killed, and its role has no holder on this machine."""
    machine.report()
    machine.leases.lost("cron", 8)
    machine.leases.ended(8)
    assert machine.states == [("cron", "held")]
    machine.leases.ended(7)
    machine.now = 70.0
    machine.leases.look()
    assert (machine.killed, machine.states[-1], machine.alarms) == ([], ("cron", "vacant"), [60.0, None])
    machine.leases.keep(())
    assert machine.leases.standings == {}


def test_holder_that_has_ended_is_named_to_the_next(machine: Machine) -> None:
    """A grant names the claim of the ended holder, until a worker holds the role again."""
    machine.report(claim="first")
    machine.report(phase="resigning", kill_at=None, claim="")
    machine.leases.ended(7)
    assert machine.leases.granted("cron", 8, 1) == "first"
    machine.report(8, phase="standby", kill_at=None, token=0)
    machine.leases.ended(8)
    following = Machine()
    following.leases.resume(machine.leases.export())
    assert following.leases.granted("cron", 9, 1) == "first"
    following.report(9, claim="third")
    following.leases.lost("cron", 9)
    assert following.leases.granted("cron", 9, 2) == ""


def test_next_program_kills_too(machine: Machine) -> None:
    """An upgrade hands the leases on: the alarm is set again."""
    machine.report()
    left = machine.leases.export()
    following = Machine()
    following.leases.resume(left)
    assert following.alarms == [60.0]
    following.now = 61.0
    following.leases.look()
    assert following.killed == [(7, "cron")]


@pytest.mark.parametrize("time", [True, "soon", -1, 2**60])
def test_wrong_time_is_refused(machine: Machine, time: object) -> None:
    """A worker that cannot say when it must have ended is not understood."""
    with pytest.raises(InvalidMessage, match="kill_at"):
        machine.report(kill_at=time)
