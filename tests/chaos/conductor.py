"""The course of a run: one daemon after the other, under clients and chaos, with calms in which to count."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

from tests.chaos.actions import MISHAPS, OPERATIONS, Chaos, Deck, until
from tests.chaos.clients import run_clients
from tests.chaos.logbook import Logbook
from tests.chaos.referee import Referee
from tests.chaos.subject import NAME, Process, Setting, Subject, why_no_other_user
from tests.patience import PATIENCE

__all__ = ["run"]

_EPOCH = 100.0  # seconds that one daemon lives, about
_BETWEEN_CALMS = 20.0
_LEAVING = 45.0  # seconds for processes to leave: longer than connections are drained
_PAUSE = 0.5  # seconds at most between two actions
_READING = 0.05  # seconds between two looks at the log


async def run(folder: Path, seconds: float, seed: int) -> Referee:
    """Do it all for about so many seconds; what is left out here, and why, is among the figures."""
    random = Random(seed)
    referee = Referee()
    if why := why_no_other_user():
        referee.figures[f"left out: a daemon that is another user, and exhausted processes ({why})"] = 1
    if why := _why_no_disk():
        referee.figures[f"left out: full and vanished disks ({why})"] = 1
    end = time.monotonic() + seconds
    count = max(1, round(seconds / _EPOCH))
    for number in range(1, count + 1):
        setting = Setting(
            workers=random.randint(1, 3),
            preload=random.random() < 0.4,
            is_dropped=not why_no_other_user() and random.random() < 0.6,
        )
        left = end - time.monotonic()
        print(f"daemon {number} of {count}: {setting}", file=sys.stderr)
        share = left / (count - number + 1)
        await _epoch(folder / str(number), setting, referee, Random(random.random()), share)
    referee.figures["processes"] = len(referee.processes)
    return referee


async def _epoch(folder: Path, setting: Setting, referee: Referee, random: Random, seconds: float) -> None:
    end = time.monotonic() + seconds
    subject = Subject(folder, setting)
    logbook = Logbook(subject.log, referee, folder / "log.txt")
    try:
        if not _why_no_disk():
            subject.mount()
        subject.write(1)
        chaos = Chaos(subject, referee, logbook, random)
        decks = [
            Deck([each for each in actions if each.is_possible(subject)], Random(random.random()))
            for actions in (OPERATIONS, MISHAPS)
        ]
        await chaos.start()
        referee.figures["daemons"] += 1
        async with _read(logbook), _clients(chaos):
            while (left := end - time.monotonic()) > 0 and subject.is_there:
                await _storm(chaos, decks, min(left, _BETWEEN_CALMS))
                await _calm(chaos)
        await _end(chaos)
        logbook.close()
    finally:
        (folder / "course.txt").write_text("".join(f"{line}\n" for line in referee.course))
        subject.close()


async def _storm(chaos: Chaos, decks: Sequence[Deck], seconds: float) -> None:
    """Do what there is to do, the operator's and the mishaps side by side."""
    end = time.monotonic() + seconds
    await asyncio.gather(*(_lane(chaos, deck, end) for deck in decks))


async def _lane(chaos: Chaos, deck: Deck, end: float) -> None:
    while time.monotonic() < end:
        action = deck.deal()
        name = action.__name__.replace("_", " ")
        chaos.referee.note(f"begin: {name}")
        await action(chaos)
        chaos.referee.note(f"end: {name}")
        chaos.referee.figures[f"action: {name}"] += 1
        async with chaos.files:  # not while it is down on purpose
            if not chaos.subject.is_there:
                chaos.referee.violation(f"the daemon has ended by itself, during or after: {name}")
                await chaos.start_over()
        await asyncio.sleep(chaos.random.random() * _PAUSE)


async def _calm(chaos: Chaos) -> None:
    """With all in order again, everything must be as ordered: state, workers, processes, code."""
    chaos.referee.figures["calms"] += 1
    chaos.referee.note("calm")
    if workers := await _recovered(chaos):
        await _only_these(chaos, workers)
        await chaos.release("reload", NAME)


async def _recovered(chaos: Chaos) -> set[int]:
    """Wait until all workers are ready that were ordered; return their pids, none if they do not come."""
    if chaos.subject.workers is None and await chaos.ordered("scale", "2", NAME):
        chaos.subject.workers = 2
    deadline = time.monotonic() + PATIENCE
    while True:
        done = await chaos.command("status", "--json", NAME)
        status: dict[str, Any] = json.loads(done.out) if done.out.startswith("{") else {}
        workers = {each["pid"]: each["state"] for each in status.get("workers", [])}
        is_well = status.get("state") == "running" and set(workers.values()) == {"ready"}
        if is_well and len(workers) == chaos.subject.workers:
            return set(workers)
        if time.monotonic() > deadline:
            wanted = f"{chaos.subject.workers} workers are wanted"
            chaos.referee.violation(f"it does not recover: {wanted}, status: {done.out or done.err}")
            await chaos.start_over()
            return set()
        await asyncio.sleep(0.2)


async def _only_these(chaos: Chaos, workers: set[int]) -> None:
    """Wait until no process is there that has no place."""
    odd: list[str] = []

    def belongs(process: Process) -> bool:
        if process.kind == "template":
            return True
        return process.pid == chaos.subject.pid or bool({process.pid, process.parent} & workers)

    def are_alone() -> bool:
        there = chaos.subject.processes()
        chaos.referee.processes.update(each.pid for each in there)
        odd[:] = [f"{each.kind} {each.pid}" for each in there if not belongs(each)]
        return not odd

    if not await until(are_alone, _LEAVING):
        chaos.referee.violation(f"processes that nobody wants: {odd}")
        await chaos.start_over()


async def _end(chaos: Chaos) -> None:
    """After the stop nothing is left."""
    subject, referee = chaos.subject, chaos.referee
    done = await chaos.command("stop", NAME)
    referee.expect(done.status == 0, f"the stop ends with {done.status}: {done.err.strip()!r}")
    left = subject.tamed.left()
    referee.expect(not left, f"this is left after the stop: {left}")
    ports = subject.ports_in_use()
    referee.expect(not ports, f"these ports are in use after the stop: {ports}")
    referee.expect(not subject.unix.exists(), "the unix socket is there after the stop")
    referee.figures["clean stops"] += not left and not ports


@asynccontextmanager
async def _clients(chaos: Chaos) -> AsyncIterator[None]:
    over = asyncio.Event()
    task = asyncio.create_task(run_clients(chaos.subject, chaos.referee, Random(chaos.random.random()), over))
    try:
        yield
    finally:
        over.set()
        await task


@asynccontextmanager
async def _read(logbook: Logbook) -> AsyncIterator[None]:
    async def go_on() -> None:
        while True:
            logbook.read()
            await asyncio.sleep(_READING)

    task = asyncio.create_task(go_on())
    try:
        yield
    finally:
        task.cancel()


def _why_no_disk() -> str:
    return "" if os.geteuid() == 0 else "only root can mount"
