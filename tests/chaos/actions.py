"""All that is done to a daemon: what an operator does, and what befalls it at the same time.

An operator's actions follow each other, and so do mishaps; the two go on beside each other, so a mishap comes
at every moment of what the operator does. Each tells the referee first what it may explain.
"""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from random import Random
from typing import NamedTuple

import tamed
from tests.chaos.logbook import Logbook
from tests.chaos.referee import Referee
from tests.chaos.subject import NAME, WATCHDOG, Process, Subject
from tests.patience import PATIENCE
from tests.supervised.daemon import Done, is_there

__all__ = ["MISHAPS", "OPERATIONS", "Action", "Chaos", "Deck", "until"]

_LONG = WATCHDOG + 10.0  # seconds; who is stopped for so long is replaced
_OURS = f'File "{Path(tamed.__file__).parent}'
_LOOK = 0.005  # seconds between two looks for a process that is there for a moment
_ANEW = 30.0  # seconds to make anew what was swept away
_ATTEMPTS = 20  # to reload while something else is under way
_APPEARS = 3.0  # seconds to wait for one


class Chaos:
    """What an action works with. ``files`` is held while the release in place must stay what it is."""

    def __init__(self, subject: Subject, referee: Referee, logbook: Logbook, random: Random) -> None:
        self.subject = subject
        self.referee = referee
        self.logbook = logbook
        self.random = random
        self.files = asyncio.Lock()
        self.version = 1

    async def command(self, *words: str) -> Done:
        """Give a command, which may fail but neither hang nor end in a traceback."""
        told = f"tamed {' '.join(words)}"
        self.referee.note(told)
        try:
            done = await self.subject.command(*words)
        except TimeoutError:
            self.referee.violation(f"{told} has not ended after {PATIENCE:g} s")
            return Done(-1, "", "")
        self.referee.note(f"{told}: {done}")
        self.referee.figures["commands"] += 1
        is_ours = _OURS in done.err  # the user's own code may be shown, not ours
        self.referee.expect(not is_ours, f"{told} ends in a traceback: {done.err[-300:]!r}")
        self.referee.expect(
            done.status == 0 or bool(done.err or done.out), f"{told} ends with {done.status} and says nothing"
        )
        return done

    async def ordered(self, *words: str) -> bool:
        """Give a command that has to succeed unless something is wrong; tell whether it has."""
        begun = time.monotonic()
        done = await self.command(*words)
        self.subject.adopt(done)
        if done.status != 0 and not self.referee.is_disturbed(begun):
            self.referee.violation(f"tamed {' '.join(words)} fails with {done.status}: {done.err.strip()!r}")
        self.referee.figures[f"{words[0]}s" + " refused in a fault" * (done.status != 0)] += 1
        return done.status == 0

    async def release(self, *words: str) -> None:
        """Put a new release in place and have it taken up; it is served from then on, or the old one is."""
        async with self.files:
            self.version += 1
            # A worker that takes another's place reads the code of now, so the new one may serve already.
            self.referee.allow_another_version(self.version)
            self.subject.write(self.version)
            if await self.ordered(*words):
                self.referee.allow_version(self.version)

    async def start(self) -> None:
        """Start the daemon, which must succeed: the release that is in place is good."""
        done = await self.command("start", "chaos.toml")
        if done.status != 0:
            self.referee.violation(f"a start fails with {done.status}: {done.err.strip()!r}")
            self.subject.end()
            done = await self.command("start", "chaos.toml")
            assert done.status == 0, done
        self.subject.adopt(done)
        self.referee.allow_version(self.version)

    async def start_over(self) -> None:
        """Start a daemon that is not what it should be anew, so that what is wrong with it counts once."""
        why = "a daemon that is started over"
        with ExitStack() as stack:
            stack.enter_context(self.referee.fault(why))
            stack.enter_context(self.referee.outage(why))
            for process in self.subject.processes():
                stack.enter_context(self.referee.risk(process.pid, why))
                self.logbook.orphaned(process.pid)
            self.subject.end()
            await self.start()

    async def pick(self, kind: str) -> Process | None:
        """Find a process of a kind, which may be there for a moment only; None if there is none."""
        deadline = time.monotonic() + _APPEARS
        while True:
            there = self.subject.processes()
            self.referee.processes.update(each.pid for each in there)
            found = [each for each in there if self.kind_of(each) == kind]
            if found or time.monotonic() > deadline:
                return self.random.choice(found) if found else None
            await asyncio.sleep(_LOOK)

    def kind_of(self, process: Process) -> str:
        """Return what a process is: a worker has the command line of its template at first."""
        if process.pid == self.subject.pid:
            return "supervisor"
        return "worker" if process.pid in self.referee.greeted else process.kind


Action = Callable[[Chaos], Awaitable[None]]

FULL_DISK = "a full disk"


def _always(subject: Subject) -> bool:
    return True


class Weighted(NamedTuple):
    """An action, how often it comes, and to which daemons it can be done."""

    perform: Action
    weight: int
    is_possible: Callable[[Subject], bool] = _always


class Deck:
    """Deals actions: each of them once, and then each as often as it weighs, in any order."""

    def __init__(self, actions: Sequence[Weighted], random: Random) -> None:
        self._actions = actions
        self._random = random
        self._left = [each.perform for each in actions]
        random.shuffle(self._left)

    def deal(self) -> Action:
        """Return the next one."""
        if not self._left:
            self._left = [each.perform for each in self._actions for _ in range(each.weight)]
            self._random.shuffle(self._left)
        return self._left.pop()


async def until(look: Callable[[], object], patience: float = PATIENCE) -> bool:
    """Wait for what gives no sign when it happens; tell whether it has."""
    deadline = time.monotonic() + patience
    while not look():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True


# The operator's.


async def reload_a_good_release(chaos: Chaos) -> None:
    """Every client that comes after it gets the new one."""
    await chaos.release("reload", NAME)


async def upgrade(chaos: Chaos) -> None:
    """The same, in a new supervisor."""
    await chaos.release("upgrade", NAME)


async def reload_a_broken_release(chaos: Chaos) -> None:
    """It is refused, and no client notices, also if a worker is lost meanwhile."""
    async with chaos.files:
        try:
            with chaos.referee.fault("a broken release"):
                how = chaos.subject.damage(chaos.random)
                word = chaos.random.choice(["reload", "reload", "upgrade"])
                done = await chaos.command(word, NAME)
                chaos.referee.expect(done.status != 0, f"{word} takes a broken release: {how}")
                chaos.referee.figures["broken releases refused"] += done.status != 0
                await asyncio.sleep(chaos.random.random())
        finally:
            chaos.subject.write(chaos.version)


async def scale(chaos: Chaos) -> None:
    """Up and down."""
    count = chaos.random.randint(1, 4)
    done = await chaos.ordered("scale", str(count), NAME)
    chaos.subject.workers = count if done else None


async def ask(chaos: Chaos) -> None:
    """The status is told at any time."""
    begun = time.monotonic()
    done = await chaos.command("status", "--json", NAME)
    if not done.out:
        chaos.referee.expect(chaos.referee.is_disturbed(begun), f"status says nothing: {done.err.strip()!r}")


async def restart(chaos: Chaos) -> None:
    """Who comes meanwhile is served or refused. If it fails in a fault, the daemon is stopped."""
    async with chaos.files:
        begun = time.monotonic()
        with ExitStack() as stack:
            stack.enter_context(chaos.referee.outage("a restart", is_orderly=True))
            if not chaos.subject.plan.exists():  # one who has dropped privileges cannot make root's plan anew
                stack.enter_context(chaos.referee.fault("no plan"))
            workers = [each.pid for each in chaos.subject.processes()]
            is_done = await chaos.ordered("restart", NAME)
            if is_done:
                chaos.referee.allow_version(chaos.version)
            elif not chaos.subject.is_there:
                await chaos.start()
        if chaos.referee.had_fault(FULL_DISK, begun):
            # A daemon that ends on one cannot say what it has lost, also of workers that have ended before.
            for pid in chaos.referee.greeted.union(workers):
                chaos.logbook.orphaned(pid)


OPERATIONS = (
    Weighted(reload_a_good_release, 6),
    Weighted(upgrade, 3),
    Weighted(reload_a_broken_release, 4),
    Weighted(scale, 4),
    Weighted(ask, 2),
    Weighted(restart, 1),
)


# The mishaps.


async def kill_a_worker(chaos: Chaos) -> None:
    """Only what it had let in is lost."""
    if worker := await chaos.pick("worker"):
        with chaos.referee.fault("a killed worker"), chaos.referee.risk(worker.pid, "a killed worker"):
            _send(chaos, worker, signal.SIGKILL)


async def kill_a_helper(chaos: Chaos) -> None:
    """Clients do not notice the end of what serves none."""
    kind = chaos.random.choice(["template", "planner", "trial", "child"])
    if process := await chaos.pick(kind):
        with ExitStack() as stack:
            stack.enter_context(chaos.referee.fault(f"a killed {kind}"))
            if kind == "template":  # it may be a worker of its that no client has met yet
                stack.enter_context(chaos.referee.risk(process.pid, "a killed worker"))
            await asyncio.sleep(chaos.random.random() * 0.1)
            _send(chaos, process, signal.SIGKILL)


async def kill_the_supervisor(chaos: Chaos) -> None:
    """What was let in is served to its end, and the next start finds the ports free."""
    async with chaos.files:
        subject, referee = chaos.subject, chaos.referee
        with referee.fault("a killed supervisor"), referee.outage("a killed supervisor"):
            for process in subject.processes():
                chaos.logbook.orphaned(process.pid)
                referee.may_be_late(process.pid)  # one that drains accepts again: its successors end, too
            os.kill(subject.pid, signal.SIGKILL)
            referee.figures["killed: supervisor"] += 1
            for process in subject.processes():  # some may have come meanwhile
                chaos.logbook.orphaned(process.pid)
            await asyncio.sleep(chaos.random.choice([0.0, chaos.random.random()]))
            await chaos.start()


async def stop_for_a_moment(chaos: Chaos) -> None:
    """A process that is held up for less than the watchdog's time is waited for."""
    kind = chaos.random.choice(["worker", "worker", "supervisor", "template", "planner", "trial", "child"])
    if process := await chaos.pick(kind):
        with chaos.referee.fault(f"a stopped {kind}"):
            chaos.referee.may_be_late(process.pid)
            _send(chaos, process, signal.SIGSTOP)
            await asyncio.sleep(chaos.random.random() * 2)
            _send(chaos, process, signal.SIGCONT)


async def stop_for_long(chaos: Chaos) -> None:
    """A worker that is held up for longer is replaced, and what it had let in is lost."""
    if worker := await chaos.pick("worker"):
        why = "a hanging worker"
        with chaos.referee.fault(why), chaos.referee.risk(worker.pid, why, slack=30.0):
            chaos.referee.may_be_late(worker.pid)
            _send(chaos, worker, signal.SIGSTOP)
            await until(lambda: not is_there(worker.pid), _LONG)
            _send(chaos, worker, signal.SIGCONT)


async def exhaust_descriptors(chaos: Chaos) -> None:
    """Nobody can open anything for a while: clients wait, and commands say why not."""
    kind = chaos.random.choice(["worker", "supervisor"])
    if process := await chaos.pick(kind):
        why = f"no descriptors: {kind}"
        with ExitStack() as stack:
            stack.enter_context(chaos.referee.fault(why))
            if kind == "worker":
                # Twisted accepts clients then, with a descriptor that it has in reserve, and drops them.
                stack.enter_context(chaos.referee.unreachable("twisted", why))
            stack.enter_context(_limited(chaos, process, "nofile"))
            chaos.referee.figures[f"without descriptors: {kind}"] += 1
            await asyncio.sleep(0.5 + chaos.random.random() * 2)


async def exhaust_processes(chaos: Chaos) -> None:
    """Nothing can be started for a while, and a worker is lost just then."""
    supervisor = Process(chaos.subject.pid, 0, "supervisor")
    with chaos.referee.fault("no processes"), _limited(chaos, supervisor, "nproc"):
        chaos.referee.figures["without processes"] += 1
        await kill_a_worker(chaos)
        await asyncio.sleep(0.5 + chaos.random.random() * 2)


async def fill_the_disk(chaos: Chaos) -> None:
    """Service goes on; lines of the log are lost, and that is said."""
    ballast = chaos.subject.disk / "ballast"
    chaos.referee.figures["full disks"] += 1
    with chaos.referee.fault(FULL_DISK):
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        await asyncio.sleep(0.5 + chaos.random.random() * 2)
        ballast.unlink(missing_ok=True)


async def lose_the_disk(chaos: Chaos) -> None:
    """Service goes on, and the log is written on where its folder is then."""
    chaos.referee.figures["vanished disks"] += 1
    with chaos.referee.fault("a vanished disk"):
        chaos.logbook.read()
        chaos.subject.unmount()
        chaos.logbook.read()
        await asyncio.sleep(1 + chaos.random.random() * 2)
        chaos.subject.mount()
        chaos.logbook.read()
        await asyncio.sleep(2)


async def sweep_the_run_directory(chaos: Chaos) -> None:
    """It is created again within seconds, and no second daemon can be started meanwhile."""
    subject, referee = chaos.subject, chaos.referee
    async with chaos.files:
        with referee.fault("a swept run directory"):
            subject.sweep()
            referee.figures["swept run directories"] += 1
            done = await chaos.command("start", "chaos.toml")
            referee.expect(
                done.status == 75, f"in a swept run directory a second start ends with {done.status}: {done}"
            )
            if not await until((subject.instance / f"{NAME}.sock").exists, _ANEW):
                referee.violation("a swept run directory is not created again")
                await chaos.start_over()


async def remove_the_unix_socket(chaos: Chaos) -> None:
    """The next reload binds it anew."""
    async with chaos.files:
        with chaos.referee.unreachable("unix", "no unix socket"), chaos.referee.fault("a removed socket"):
            chaos.subject.unix.unlink(missing_ok=True)
            chaos.referee.figures["removed sockets"] += 1
            for _ in range(_ATTEMPTS):
                if (await chaos.command("reload", NAME)).status == 0:
                    break
                await asyncio.sleep(0.5)
            if not chaos.subject.unix.exists():
                chaos.referee.violation("a reload does not bind a socket that was removed")
                await chaos.start_over()


MISHAPS = (
    Weighted(kill_a_worker, 8),
    Weighted(kill_a_helper, 6),
    Weighted(kill_the_supervisor, 2),
    Weighted(stop_for_a_moment, 6),
    Weighted(stop_for_long, 1),
    Weighted(exhaust_descriptors, 3),
    Weighted(exhaust_processes, 2, lambda subject: subject.setting.is_dropped),  # root has no such limit
    Weighted(fill_the_disk, 2, lambda subject: subject.disk.is_mount()),
    Weighted(lose_the_disk, 1, lambda subject: subject.disk.is_mount()),
    Weighted(sweep_the_run_directory, 2),
    Weighted(remove_the_unix_socket, 1),
)


def _send(chaos: Chaos, process: Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(process.pid, number)
        words = {signal.SIGKILL: "killed", signal.SIGSTOP: "stopped"}
        if number in words:
            chaos.referee.figures[f"{words[number]}: {chaos.kind_of(process)}"] += 1


@contextmanager
def _limited(chaos: Chaos, process: Process, limit: str) -> Iterator[None]:
    """Take a process the means for one more, and give them back to it and to all that it has started."""
    used = 0
    if limit == "nofile":
        with suppress(OSError):
            used = 1 + max(int(each.name) for each in Path(f"/proc/{process.pid}/fd").iterdir())
    chaos.subject.limit([process.pid], limit, used)
    try:
        yield
    finally:
        for _ in range(2):  # one that was started while the first was looked at has it from there
            chaos.subject.limit([process.pid, *(each.pid for each in chaos.subject.processes())], limit)
