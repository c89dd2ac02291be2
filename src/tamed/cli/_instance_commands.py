"""The commands for instances: running and ended daemons, and all of them. See `tamed.cli.commands`."""

from __future__ import annotations

from tamed.cli.grammar import Argument, Command, Option, one_of, whole_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["INSTANCE_COMMANDS"]

_LEVELS: Final = ("debug", "info", "warning", "error", "critical")


def _level(word: str) -> str:
    return one_of(*_LEVELS)(word.lower()).upper()


def _duration(word: str) -> float:
    from tamed.plugins.values import Duration

    return Duration.parse(word)


_RUNDIR: Final = Option(
    "--rundir", "Run directory: where the instances of this user are.", "FOLDER", env="TAMED_RUNDIR"
)
_ALL: Final = Option("--all", "All instances that run.", name="every")


def _lines(help_text: str, default: int) -> Option:
    return Option("-n --lines", help_text, "NUMBER", default=default, read=whole_number(0, 1_000_000_000))


def _json(help_text: str) -> Option:
    return Option("--json", help_text, name="as_json")


def _of_instance(
    name: str,
    summary: str,
    about: str,
    *options: Option,
    arguments: tuple[Argument, ...] = (),
    several: bool = False,
    complete: str = "running",
    module: str = "instances",
) -> Command:
    """Declare a command for an instance, or for ``several``. NAME is optional if only one instance runs."""
    more = "; several may be given" if several else ""
    names = Argument(
        "names" if several else "name", "NAME", required=False, complete=complete, repeatable=several
    )
    return Command(
        name,
        summary,
        f"tamed.cli.{module}:{name}",
        f"{about}\n\nNAME is optional if only one instance runs{more}.",
        arguments=(*arguments, names),
        options=(*([_ALL] if several else []), *options, _RUNDIR),
    )


INSTANCE_COMMANDS: Final = (
    _of_instance(
        "events",
        "Show the events of an instance: deaths, restarts, reloads and more.",
        """
        Prints the last events: starts, deaths and restarts of workers, reloads (who requested them, which
        settings have changed, how long they took), scaling, upgrades, drains and stops. They are kept in a
        file beside the log, also over an upgrade and after the end.
        """,
        _lines("Number of events to show.", 20),
        Option("-f --follow", "Continue with new events."),
        _json("Print each event as a JSON object on a line, with all its facts."),
        complete="instance",
        module="logs",
    ),
    _of_instance(
        "logs",
        "Show the records in the log of an instance, or of all.",
        """
        Prints the last records that match all conditions, also of rotated and compressed files. A record is
        shown whole, with its traceback. The log of an instance that has ended is found by its name.
        """,
        _lines("Number of records to show.", 20),
        Option("-f --follow", "Continue with new records, also after a rotation."),
        Option(
            "--all", "The logs of all instances, each record with the name of its instance.", name="every"
        ),
        Option("--level", "Only records of this level or above.", "LEVEL", read=_level, choices=_LEVELS),
        Option("--grep", "Only records that this regular expression matches somewhere.", "PATTERN"),
        Option("--since", "Only records since then: 10m ago, 14:30 today, or 2026-11-23T14:30.", "TIME"),
        Option(
            "--worker",
            "Only records of the worker of this number.",
            "NUMBER",
            read=whole_number(1, 1_000_000_000),
        ),
        Option("--service", "Only records of this service or logger, and below.", "NAME"),
        _json("Print each record as a JSON object on a line."),
        complete="instance",
        module="logs",
    ),
    _of_instance(
        "reload",
        "Replace the workers with new ones that run the current code.",
        """
        No connection is dropped: the new workers read the files and the code again, and the old workers
        finish the connections that they have accepted. If a new worker does not become ready, the old workers
        stay, and the command reports why. While another reload, an upgrade or scaling is in progress, the
        command waits.
        """,
        several=True,
    ),
    _of_instance(
        "reopen",
        "Reopen the log file of an instance.",
        """
        For use after logrotate or another program has moved the file. If it fails, logging continues in the
        old file, and the command reports why.
        """,
    ),
    Command(
        "resign",
        "Move a role to another worker of an instance.",
        "tamed.cli.instances:resign",
        """
        ROLE is the path of a service that runs in one worker only (`tamed roles` lists them). The worker that
        holds it stops the service, and then another one starts it. Returns when that worker holds the role.
        If no other worker is ready, the same one starts the service again.
        """,
        arguments=(Argument("name", "NAME", complete="running"), Argument("role", "ROLE")),
        options=(_RUNDIR,),
    ),
    _of_instance(
        "restart",
        "Stop an instance, and start it again with the same command line.",
        """
        Waits until the old process has ended. The new one has the environment of this command. An instance
        that was stopped by `tamed stop`, was killed or has failed is started.
        """,
        complete="instance",
        several=True,
    ),
    _of_instance(
        "roles",
        "Show the holders of roles: services that run in one worker only.",
        """
        A service with only = "host" is prepared in every worker, and one of them holds its role and runs it.
        For each role: the holder, since when, how often the role has passed on, the time without a holder in
        all, and how many workers are on standby. The exit status is 0 only if each role has a holder.
        """,
        _json("Print the roles as JSON, with the token of each."),
        module="status",
    ),
    _of_instance(
        "scale",
        "Change the number of workers of an instance.",
        """
        Returns when COUNT workers are ready. Surplus workers finish the connections that they have. The
        number stays in force until a restart, or a reload with another number in the files, even if some
        workers do not become ready. While a reload or an upgrade is in progress, the command waits; a later
        number replaces an earlier one.
        """,
        Option("--yes", "Allow more than 32 workers for each CPU."),
        arguments=(Argument("count", "COUNT", read=whole_number(1)),),
    ),
    _of_instance(
        "stacks",
        "Show the current stacks of all threads and tasks of each worker.",
        """
        Nothing is stopped. The stacks of threads and asyncio tasks are those of one moment in each worker;
        tasks with the same stack are counted together. A worker whose event loop is blocked prints the stacks
        of its threads, which are then in the log, too.
        """,
        _json("Print the stacks as JSON."),
        module="status",
    ),
    Command(
        "status",
        "Show the state of all instances, or of one.",
        "tamed.cli.status:status",
        """
        Without NAME, it lists all instances, also those that have failed or were stopped. With NAME, it shows
        the workers, services and addresses of one, its last error, and the end of its log. The exit status is
        0 only if all workers are ready.
        """,
        arguments=(Argument("name", "NAME", required=False, complete="instance"),),
        options=(
            _lines("Number of lines of the log to show with NAME.", 10),
            Option("--watch", "Show it again every two seconds."),
            _json("Print everything as JSON: a list without NAME."),
            _RUNDIR,
        ),
    ),
    _of_instance(
        "stop",
        "Stop an instance and wait until it has drained.",
        "The instance finishes its open connections, within its drain timeout.",
        Option(
            "--timeout",
            "Longest time to wait; by default until the process has ended.",
            "DURATION",
            read=_duration,
        ),
        Option("--force", "Kill it if it has not ended in time (10s without --timeout)."),
        several=True,
    ),
    Command(
        "top",
        "Show instances and their workers on a full screen, live.",
        "tamed.cli.top:top",
        """
        Without NAME, it shows all that run. Keys sort the workers by CPU, memory or connections, filter them,
        show the stacks or the log of one, and reload its instance. It needs a terminal and the extra top.
        """,
        (("pip install 'tamed[top]'", ""), ("tamed top", "")),
        arguments=(Argument("name", "NAME", required=False, complete="running"),),
        options=(_RUNDIR,),
    ),
    _of_instance(
        "upgrade",
        "Replace the supervisor's own program in place, and reload.",
        """
        The supervisor executes the program that is installed now: a new Tamed, or a new Python at the same
        path. The process keeps its pid, its sockets and its workers, and no connection is dropped. If the new
        program does not start, the old one stays, and the command reports why. While a reload, another
        upgrade or scaling is in progress, the command waits.
        """,
    ),
    _of_instance(
        "why",
        "Explain the last start, reload and death of an instance.",
        """
        Shows what a start or reload in progress waits for, how long the steps of the last one took, and
        how the last worker died: its signal, memory and last lines, and whether the kernel's OOM killer was
        at work.
        """,
        complete="instance",
        module="why",
    ),
)
"""All of them, by name."""
