"""The campaign on a clock by hand: when it asks, when it stops, and that no two overlap whatever is late."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamed.cluster.campaign import Campaign, Phase, Request
from tamed.cluster.engine import Attempt

TTL = 12.0  # so that a sixth is 2 s


def campaign() -> Campaign:
    """Return a campaign that begins at 100."""
    return Campaign(TTL, 100.0, lambda: 0.5)


def leading() -> Campaign:
    """Return a campaign whose lease counts from 100."""
    one = campaign()
    assert one.request(100.0) is Request.ACQUIRE
    one.acquired(Attempt(7, ""), 100.0, 101.0)
    return one


def test_standby_asks_again_after_a_sixth() -> None:
    """While another one holds the role, it is asked for about every sixth of the lease."""
    one = campaign()
    one.acquired(Attempt(None, "other"), 100.0, 101.0)
    assert (one.phase, one.holder, one.kill_at, one.due) == (Phase.STANDBY, "other", None, 103.0)
    assert one.request(102.9) is None
    assert one.request(103.0) is Request.ACQUIRE


def test_vacant_role_is_asked_for_soon() -> None:
    """When the role may be vacant, a standby asks at once, or a little later."""
    one = campaign()
    one.acquired(Attempt(None, "other"), 100.0, 100.0)
    one.may_be_vacant(100.5)
    assert one.due == pytest.approx(100.6)


def test_lease_counts_from_before_the_request() -> None:
    """The deadlines are those of the moment before the request was sent, whenever its answer came."""
    one = leading()
    assert (one.phase, one.token, one.kill_at, one.due, one.patience) == (Phase.LEADING, 7, 110.0, 102.0, 2.0)
    one.may_be_vacant(101.0)
    assert one.due == 102.0


def test_answer_after_the_deadline_is_worth_nothing() -> None:
    """A process that was suspended between a request and its answer does not lead."""
    one = campaign()
    one.acquired(Attempt(7, ""), 100.0, 108.0)
    assert one.phase is Phase.RESIGNING


def test_renewal_moves_the_deadlines() -> None:
    """Each renewal counts from the moment before it was sent."""
    one = leading()
    assert one.request(102.0) is Request.RENEW
    one.renewed(is_held=True, sent=102.0)
    assert (one.kill_at, one.due, one.trouble) == (112.0, 104.0, "")


def test_holder_resigns_at_two_thirds() -> None:
    """An engine that does not answer means "not leading" before another process can have the role."""
    one = leading()
    for sent in (102.0, 104.0, 106.0):
        one.look(sent)
        assert (one.phase, one.request(sent)) == (Phase.LEADING, Request.RENEW)
        one.failed("no answer", sent, sent + 2.0)
    one.look(108.0)
    assert (one.phase, one.trouble, one.kill_at) == (Phase.RESIGNING, "no answer", 110.0)
    assert one.request(108.0) is Request.RENEW  # so that a slow stop need not be killed
    one.renewed(is_held=True, sent=108.0)
    assert (one.phase, one.kill_at) == (Phase.RESIGNING, 118.0)


def test_lost_lease_asks_no_more() -> None:
    """When the engine says that the lease is lost, the holder resigns, and gives nothing back."""
    one = leading()
    one.renewed(is_held=False, sent=102.0)
    assert (one.phase, one.due, one.kill_at) == (Phase.RESIGNING, inf, 110.0)
    one.stopped(103.0)
    assert (one.phase, one.kill_at) == (Phase.ENDED, None)


def test_stopped_service_gives_its_role_back() -> None:
    """A lease is renewed until the service has stopped, and then given back; a failure of that is the end."""
    for outcome in ("released", "failed"):
        one = leading()
        one.resign()
        assert (one.phase, one.request(102.0)) == (Phase.RESIGNING, Request.RENEW)
        one.stopped(103.0)
        one.renewed(is_held=True, sent=102.0)
        assert (one.kill_at, one.request(103.0)) == (None, Request.RELEASE)
        if outcome == "released":
            one.released()
        else:
            one.failed("gone", 103.0, 104.0)
        assert (one.phase, one.request(200.0)) == (Phase.ENDED, None)
        one.stopped(201.0)
        assert one.phase is Phase.ENDED


def test_withdrawn_standby_gives_back_what_it_may_have() -> None:
    """An attempt in progress when the service is stopped may have won the role."""
    one = campaign()
    assert one.request(100.0) is Request.ACQUIRE
    one.stopped(101.0)
    one.acquired(Attempt(7, ""), 100.0, 101.0)
    assert (one.phase, one.kill_at, one.request(101.0)) == (Phase.RESIGNING, None, Request.RELEASE)


def test_failed_attempt_of_a_withdrawn_one_is_given_back() -> None:
    """The same, if the attempt had no answer; and a lost renewal needs no release."""
    one = campaign()
    one.request(100.0)
    one.stopped(101.0)
    one.failed("no answer", 100.0, 102.0)
    assert one.request(102.0) is Request.RELEASE
    one = leading()
    one.stopped(102.0)
    one.renewed(is_held=False, sent=101.0)
    assert one.phase is Phase.ENDED


def test_one_that_has_never_asked_ends_at_once() -> None:
    """A campaign that waits for its first attempt has nothing to give back."""
    one = campaign()
    one.stopped(99.0)
    assert one.phase is Phase.ENDED


class Store:
    """An engine whose clock runs at another rate, and which answers late, or not."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.holder: int | None = None
        self.until = 0.0
        self.revision = 0

    def now(self, time: float) -> float:
        return time * self.rate

    def holds(self, who: int, time: float) -> bool:
        return self.holder == who and self.now(time) < self.until

    def acquire(self, who: int, time: float) -> Attempt:
        if self.holder is not None and self.now(time) < self.until and self.holder != who:
            return Attempt(None, "other")
        self.revision += 1
        self.holder, self.until = who, self.now(time) + TTL
        return Attempt(self.revision, "")

    def renew(self, who: int, time: float) -> bool:
        if not self.holds(who, time):
            return False
        self.until = self.now(time) + TTL
        return True

    def release(self, who: int) -> None:
        if self.holder == who:
            self.holder = None


@given(
    rate=st.floats(0.85, 1.15),
    delays=st.lists(
        st.tuples(st.floats(0, 1.1), st.floats(0, 1.1), st.integers(0, 9)), min_size=40, max_size=80
    ),
)
def test_no_two_act_at_once(rate: float, delays: list[tuple[float, float, int]]) -> None:
    """Requests and answers are late or lost, and clocks differ by 15 %: nobody acts while another one may.

    A holder that must stop, or that is blocked, acts until it is killed; then another takes its place.
    """
    store = Store(rate)
    contenders = {who: Campaign(TTL, 0.0, lambda: 0.5) for who in range(3)}
    acts_until = dict.fromkeys(contenders, 0.0)
    now = 0.0
    for there, back, fate in delays:
        who = min(contenders, key=lambda each: contenders[each].due)
        one = contenders[who]
        now = max(now, one.due)
        one.look(now)
        if one.phase is Phase.RESIGNING or (one.phase is Phase.LEADING and fate == 2):
            del contenders[who]
            contenders[len(acts_until)] = Campaign(TTL, max(now, acts_until[who]), lambda: 0.5)
            acts_until[len(acts_until)] = 0.0
            continue
        request = one.request(now)
        assert request is not None
        won, is_held = None, False
        if fate != 0:  # otherwise it is lost on its way
            won = store.acquire(who, now + there) if request is Request.ACQUIRE else None
            is_held = won is None and store.renew(who, now + there)
        if fate in (0, 1) or there + back > one.patience:
            one.failed("no answer", now, now + one.patience)
            continue
        if won is not None:
            one.acquired(won, now, now + there + back)
        else:
            one.renewed(is_held, now)
        if one.phase is Phase.LEADING and one.kill_at is not None:
            acts_until[who] = one.kill_at
            others = [until for other, until in acts_until.items() if other != who]
            assert all(until <= now + there for until in others), (who, now + there, acts_until)
