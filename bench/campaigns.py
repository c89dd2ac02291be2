"""``python -m bench.campaigns``: simulates the campaign for a role of a fleet, and writes its figures.

The campaign is the one that runs (`tamed.cluster.campaign`), and so is the judgement that the lease of
another has run out (`tamed.cluster.engine`). What is simulated is what they stand on: the clocks of
machines, each with a rate of its own; messages that are late, lost, or reach the engine although their sender
has given them up; the engine; and a service that needs time to stop, with a supervisor that kills it.

A referee sees all of it. It counts the moments at which two machines could act, and the time in which none
did.
"""

import argparse
import heapq
import itertools
import random
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from pathlib import Path
from typing import Final, NamedTuple

from tamed.cluster.campaign import Campaign, Phase, Request
from tamed.cluster.engine import Attempt, Sightings

__all__ = ["ENGINES", "FAULTS", "Figures", "Setting", "simulate"]

_DOCS: Final = Path(__file__).parents[1] / "docs" / "_bench" / "campaigns.md"
_ROUND: Final = 8  # leases from one fault to the next
_RESTART: Final = 1.0  # seconds from the end of a worker to the next one's campaign
_COURTESY: Final = 1 / 3  # of a lease: how long one that resigned lets others ask, as a worker does
_LATE: Final = 0.01  # of messages
_LOST: Final = 0.01


class Kind(NamedTuple):
    """What an engine does.

    ``expires`` is whether it ends a lease by its own clock; else those who want it do, by theirs. ``tells``
    is whether it tells them that a role was given back.
    """

    expires: bool
    tells: bool


ENGINES: Final = {
    "etcd": Kind(expires=True, tells=False),
    "PostgreSQL": Kind(expires=True, tells=True),
    "NATS": Kind(expires=False, tells=True),
    "Kubernetes": Kind(expires=False, tells=False),
}


class Setting(NamedTuple):
    """What is simulated: ``drift`` is how much faster or slower than true time a clock may run."""

    hosts: int
    engine: str = "etcd"
    drift: float = 0.01
    lease: float = 15.0
    rounds: int = 20
    seed: int = 1


@dataclass
class Figures:
    """What the referee saw. Times are in true seconds."""

    overlaps: int = 0
    overlap: float = 0.0
    transitions: int = 0
    requests: Counter[str] = field(default_factory=Counter)
    quiet: list[int] = field(default_factory=list)  # requests in each second without a fault
    busiest: int = 0
    seconds: float = 0.0
    gaps: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))


class _World:
    """True time, and what happens next."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.random = random.Random(setting.seed)
        self.now = 0.0
        self.is_out = False  # the engine answers nobody
        self.is_slow = False  # all messages are late
        self.figures = Figures()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def at(self, when: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (max(when, self.now), next(self._numbers), event))

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = until

    def send(self, event: Callable[[], None], *, is_cut: bool = False) -> None:
        """Deliver a message, perhaps late, perhaps never."""
        if is_cut or self.is_out or self.random.random() < _LOST:
            return
        delay = self.random.expovariate(1 / 0.003)
        if self.is_slow or self.random.random() < _LATE:
            delay += self.random.uniform(0, self.setting.lease)
        self.at(self.now + delay, event)

    def clock(self) -> "_Clock":
        rate = 1 + self.random.uniform(-1, 1) * self.setting.drift
        return _Clock(self, rate, self.random.uniform(0, 1e6))


@dataclass(frozen=True)
class _Clock:
    """The clock of a machine."""

    world: _World
    rate: float
    offset: float

    def __call__(self) -> float:
        return self.offset + self.rate * self.world.now

    def true(self, when: float) -> float:
        return (when - self.offset) / self.rate


class _Engine:
    """An engine with an expiry: one record, by the clock of its server."""

    def __init__(self, world: _World) -> None:
        self.world = world
        self.clock = world.clock()
        self.holder: Campaign | None = None
        self.token = 0
        self.until = -inf

    def acquire(self, campaign: Campaign, seen: Sightings) -> Attempt:
        if self.holder not in {None, campaign} and self.clock() < self.until:
            return Attempt(None, "another")
        return self._grant(campaign)

    def renew(self, campaign: Campaign, seen: Sightings) -> bool:
        if self.holder is not campaign or self.clock() >= self.until:
            return False
        self.until = self.clock() + self.world.setting.lease
        return True

    def release(self, campaign: Campaign, seen: Sightings) -> None:
        if self.holder is campaign:
            self.holder = None

    def _grant(self, campaign: Campaign) -> Attempt:
        self.holder, self.until = campaign, self.clock() + self.world.setting.lease
        self.token += 1
        return Attempt(self.token, "")


class _Store(_Engine):
    """An engine without an expiry: a record with a version, which those who want it watch."""

    version = 0

    def acquire(self, campaign: Campaign, seen: Sightings) -> Attempt:
        lease = self.world.setting.lease
        if self.holder not in {None, campaign} and not seen.has_run_out("role", self.version, lease):
            return Attempt(None, "another")
        self.version += 1
        return self._grant(campaign)

    def renew(self, campaign: Campaign, seen: Sightings) -> bool:
        if self.holder is not campaign:
            return False
        self.version += 1
        return True


class _Host:
    """A machine: a worker that campaigns, and the supervisor that kills it."""

    def __init__(self, world: _World, engine: _Engine, referee: "_Referee") -> None:
        self.world, self.engine, self.referee = world, engine, referee
        self.clock = world.clock()
        self.is_cut_out = self.is_cut_in = False  # what it sends, and what is sent to it, is lost
        self.begin()

    def begin(self) -> None:
        """Start a worker."""
        self.life: object = object()
        self.sightings = Sightings(self.clock)
        self.thaws = 0.0  # until then, the worker does nothing
        self.is_stopping = self.is_courteous = False
        self.flight: object = None
        self.campaign = self._campaign()
        self.step()

    def _campaign(self) -> Campaign:
        lease = self.world.setting.lease
        rest = lease * _COURTESY if self.is_courteous else 0.0
        self.is_courteous = False
        return Campaign(lease, self.clock() + rest, self.world.random.random)

    def later(self, when: float, event: Callable[[], None]) -> None:
        """Do something in this life of the worker, if there is one, when it runs."""
        if (life := self.life) is None:
            return

        def happen() -> None:
            if life is not self.life:
                return
            if self.world.now < self.thaws:
                self.world.at(self.thaws, happen)
            else:
                event()

        self.world.at(when, happen)

    def step(self) -> None:
        """Do what is due, as a worker does."""
        campaign = self.campaign
        campaign.look(self.clock())
        if campaign.phase is Phase.ENDED:
            campaign = self.campaign = self._campaign()
        if campaign.phase is Phase.LEADING:
            self.referee.acts(self)
        if campaign.must_stop:
            self.stop()
        if self.flight is None and (request := campaign.request(self.clock())) is not None:
            self.ask(request)
        self.watch()
        if campaign.due < inf and self.flight is None:
            self.later(self.clock.true(campaign.due) + 1e-6, self.step)

    def stop(self) -> None:
        """Stop the service, which takes a while."""
        if not self.is_stopping:
            self.is_stopping = True
            seconds = self.world.random.uniform(0, 0.25) * self.world.setting.lease
            self.later(self.world.now + seconds, self.stopped)

    def stopped(self) -> None:
        self.is_stopping = False
        self.referee.rests(self)
        self.campaign.stopped(self.clock())
        self.step()

    def watch(self) -> None:
        """Have the supervisor kill the worker in time: it is neither blocked nor stopped with it."""
        life, campaign = self.life, self.campaign

        def check() -> None:
            is_same = life is self.life and campaign is self.campaign
            if is_same and campaign.kill_at is not None and campaign.kill_at <= self.clock():
                self.kill()

        if campaign.kill_at is not None:
            self.world.at(self.clock.true(campaign.kill_at) + 1e-6, check)

    def kill(self, restart: float = _RESTART) -> None:
        """End the worker; another one begins after so many seconds."""
        self.referee.rests(self)
        self.life = None
        self.world.at(self.world.now + restart, self.begin)

    def ask(self, request: Request) -> None:
        """Send a request, which is given up after a while, whether or not it arrives."""
        campaign, sightings = self.campaign, self.sightings
        sent, flight = self.clock(), object()
        self.flight = flight

        def arrive() -> None:
            answer = getattr(self.engine, request.value)(campaign, sightings)
            if request is Request.RELEASE:
                self.referee.vacant()
            self.world.send(lambda: self.later(self.world.now, lambda: land(answer)), is_cut=self.is_cut_in)

        def land(answer: object) -> None:
            if self.flight is not flight:
                return
            self.flight = None
            if isinstance(answer, Attempt):
                campaign.acquired(answer, sent, self.clock())
            elif isinstance(answer, bool):
                campaign.renewed(answer, sent)
            else:
                campaign.released()
            self.step()

        def give_up() -> None:
            if self.flight is flight:
                self.flight = None
                campaign.failed("no answer", sent, self.clock())
                self.step()

        self.referee.asked(request)
        self.world.send(arrive, is_cut=self.is_cut_out)
        self.later(self.clock.true(sent + campaign.patience), give_up)


class _Referee:
    """Sees who acts."""

    def __init__(self, world: _World) -> None:
        self.hosts: list[_Host] = []
        self.fault = ""
        self._world = world
        self._acting: dict[_Host, float] = {}
        self._vacant_since = 0.0
        self._vacant = 0.0
        self._second = Counter[int]()

    def acts(self, host: _Host) -> None:
        if host in self._acting:
            return
        now, figures = self._world.now, self._world.figures
        if self._acting:
            figures.overlaps += 1
        else:
            self._vacant += now - self._vacant_since
        self._acting[host] = now
        figures.transitions += 1

    def rests(self, host: _Host) -> None:
        since = self._acting.pop(host, None)
        if since is None:
            return
        now = self._world.now
        for other in self._acting.values():
            self._world.figures.overlap += now - max(since, other)
        if not self._acting:
            self._vacant_since = now

    def asked(self, request: Request) -> None:
        self._world.figures.requests[request.value] += 1
        self._second[int(self._world.now)] += 1

    def vacant(self) -> None:
        """Send the news to all who wait, if the engine has any to send."""
        if ENGINES[self._world.setting.engine].tells:
            for host in self.hosts:
                self._world.send(partial(host.later, 0, partial(self._heard, host)))

    def _heard(self, host: _Host) -> None:
        host.campaign.may_be_vacant(host.clock())
        if host.flight is None:
            host.later(host.clock.true(host.campaign.due), host.step)

    def holder(self) -> _Host | None:
        return next(iter(self._acting), None)

    def begin_round(self, fault: str) -> None:
        """Begin to count the time without a holder."""
        self.fault, self._vacant = fault, 0.0

    def end_round(self) -> None:
        now, figures = self._world.now, self._world.figures
        open_gap = 0.0 if self._acting else now - self._vacant_since
        figures.gaps[self.fault].append(self._vacant + open_gap)
        lease = self._world.setting.lease
        last = [self._second[int(now) - second] for second in range(2, int(2 * lease))]
        figures.quiet += last
        figures.busiest = max(figures.busiest, max(self._second.values(), default=0))


def _clean_stop(_: _World, host: _Host) -> None:
    host.is_courteous = True
    host.campaign.resign()
    host.step()


def _kill(_: _World, host: _Host) -> None:
    host.kill()


def _machine_lost(world: _World, host: _Host) -> None:
    host.kill(restart=2 * world.setting.lease)


def _blocked(world: _World, host: _Host) -> None:
    host.thaws = world.now + world.random.uniform(0.3, 3) * world.setting.lease


def _cut_off(world: _World, host: _Host) -> None:
    host.is_cut_in = host.is_cut_out = True
    world.at(world.now + 2 * world.setting.lease, lambda: _mend(world, host))


def _deaf(world: _World, host: _Host) -> None:
    host.is_cut_in = True
    world.at(world.now + 2 * world.setting.lease, lambda: _mend(world, host))


def _outage(world: _World, host: _Host) -> None:
    world.is_out = True
    world.at(world.now + world.random.uniform(0.2, 2) * world.setting.lease, lambda: _mend(world, host))


def _slow(world: _World, host: _Host) -> None:
    world.is_slow = True
    world.at(world.now + 2 * world.setting.lease, lambda: _mend(world, host))


def _mend(world: _World, host: _Host) -> None:
    host.is_cut_in = host.is_cut_out = world.is_out = world.is_slow = False


FAULTS: Final[dict[str, Callable[[_World, _Host], None]]] = {
    "clean stop": _clean_stop,
    "worker killed": _kill,
    "machine lost": _machine_lost,
    "worker blocked or stopped, 0.3 to 3 leases": _blocked,
    "holder cut off, 2 leases": _cut_off,
    "answers to the holder lost, 2 leases": _deaf,
    "engine out, 0.2 to 2 leases": _outage,
    "all messages up to a lease late, 2 leases": _slow,
}
"""What happens to the holder, by its name in the table."""


def simulate(setting: Setting, faults: Sequence[str] = tuple(FAULTS)) -> Figures:
    """Let hosts campaign, with each fault so many times, and return what the referee saw."""
    world = _World(setting)
    engine = _Engine(world) if ENGINES[setting.engine].expires else _Store(world)
    referee = _Referee(world)
    referee.hosts = [_Host(world, engine, referee) for _ in range(setting.hosts)]
    pause = _ROUND * setting.lease
    world.run(pause)
    for fault in itertools.chain.from_iterable(itertools.repeat(faults, setting.rounds)):
        world.run(world.now + world.random.uniform(0, setting.lease))
        holder = referee.holder()
        if holder is None:  # a message was lost just now
            continue
        referee.begin_round(fault)
        FAULTS[fault](world, holder)
        world.run(world.now + pause)
        referee.end_round()
    world.figures.seconds = world.now
    return world.figures


def main() -> None:
    """Simulate fleets, and write the figures into the documentation."""
    parser = argparse.ArgumentParser(prog="python -m bench.campaigns")
    parser.add_argument(
        "--rounds", type=int, default=15, help="how often each fault happens, to ten machines"
    )
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    tables = {"gaps": _gaps, "sizes": _sizes, "drifts": _drifts}  # by the names in the page
    lines: list[str] = []
    for name, table in tables.items():
        lines += [f"<!-- {name} -->", "", *table(arguments.rounds, arguments.seed), ""]
    text = "\n".join(lines)
    print(text)
    _DOCS.write_text(text)


def _gaps(rounds: int, seed: int) -> Iterator[str]:
    """Yield the table of the time without a holder, in leases: median and worst."""
    yield f"| what happens to the holder | {' | '.join(ENGINES)} |"
    yield "|---|" + "---|" * len(ENGINES)
    gaps = [simulate(Setting(10, engine, rounds=rounds, seed=seed)).gaps for engine in ENGINES]
    for fault in FAULTS:
        leases = [[gap / Setting(0).lease for gap in each[fault]] for each in gaps]
        yield f"| {fault} | {' | '.join(f'{statistics.median(x):.2f}, {max(x):.2f}' for x in leases)} |"


def _sizes(rounds: int, seed: int) -> Iterator[str]:
    """Yield the table of requests to the engine, by the size of the fleet."""
    yield "| machines | requests a second | busiest second | changes of holder | overlaps |"
    yield "|---|---|---|---|---|"
    for hosts in (3, 10, 100, 1000):
        setting = Setting(hosts, "NATS", rounds=max(1, min(rounds, 300 // hosts)), seed=seed)
        figures = simulate(setting, ["clean stop", "worker killed"])
        yield (
            f"| {hosts:,} | {statistics.mean(figures.quiet):.1f} | {figures.busiest} "
            f"| {figures.transitions} | {figures.overlaps} |"
        )


def _drifts(rounds: int, seed: int) -> Iterator[str]:
    """Yield the table of overlaps, by how far the rates of clocks differ."""
    yield "| rates of clocks | changes of holder | overlaps | seconds of them |"
    yield "|---|---|---|---|"
    for drift in (0.0, 0.01, 0.05, 0.09, 0.15, 0.25):
        seeds = range(seed, seed + 5)  # each has other clocks
        settings = [
            Setting(5, each, drift, rounds=1 + rounds // 10, seed=n) for n in seeds for each in ENGINES
        ]
        done = [simulate(each) for each in settings]
        transitions, overlaps = (sum(each.transitions for each in done), sum(each.overlaps for each in done))
        yield f"| ± {drift:.0%} | {transitions} | {overlaps} | {sum(each.overlap for each in done):.1f} |"


if __name__ == "__main__":
    main()
