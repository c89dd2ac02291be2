"""The commands that run a target or list them: ``run``, ``start``, ``check``, ``twistd`` and ``plugins``."""

import atexit
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tamed._os.secrets import SECRETS
from tamed._os.text import shown
from tamed._os.trust import TRUST_WRITABLE
from tamed.cli._text import table
from tamed.cli.commands import COMMANDS
from tamed.cli.grammar import UnknownOption, parse
from tamed.cli.options import folders, misspelt_variables, service_command
from tamed.cli.password import ask_secret
from tamed.config.job import Job, Reading, TargetKind
from tamed.config.kinds import kind_of, own_kinds, resolve
from tamed.errors import UsageError
from tamed.plugins.discovery import Found, available
from tamed.service.service import MultiService, Service

if TYPE_CHECKING:
    from tamed.worker.life import Ending

__all__ = ["check", "job_of", "plugins", "read_job", "run", "start", "twistd"]


def run(**given: Any) -> int:
    """Run a target in the foreground; return its exit status."""
    job = read_job("run", **given)
    if job is None:
        return 0
    _warn_of_variables(job)
    return _run_here(job._replace(argv=tuple(sys.argv))).status


def _run_here(job: Job) -> "Ending":
    """Run a job in the foreground; return how it ended, or raise the TamedError of its failure.

    If the settings need a supervisor, this process becomes the supervisor. So it does if root runs a job as
    another user: root must not load code of that user, so a worker loads it. With another root directory,
    there is only this process.
    """
    from tamed._os.identity import becomes_another  # lazy import: other commands need no user
    from tamed.config.identity import identity_of

    reading = Reading.entering(job, ask_secret)
    daemon = reading.settings.daemon
    if daemon.is_supervised or (daemon.chroot is None and becomes_another(identity_of(daemon))):
        from tamed.control.launch import supervise_here  # each loads modules that the other must not load

        supervise_here(reading)
    from tamed.worker.alone import run as run_alone

    return run_alone(reading)


def start(**given: Any) -> int:
    """Start a target as a daemon, print the outcome, and return the exit status."""
    job = read_job("start", **given)
    if job is None:
        return 0
    _warn_of_variables(job)
    from tamed.control.launch import start as start_daemon

    job = job._replace(argv=tuple(sys.argv), detached=True)
    report = start_daemon(job, ask_secret)
    print(report.text, file=sys.stdout if report.ready else sys.stderr)
    return report.status


def check(*, system: str | None, **given: Any) -> None:
    """Load and validate a target and show its services, without running or binding anything."""
    job = read_job("check", **given)
    if job is None:
        return
    from tamed.control.check import check as check_job  # lazy import: it loads the service model

    rows = list(_tree(check_job(job, ask_secret)))
    _warn_of_variables(job, of_services=True)
    width = max(len(left) for left, _ in rows)
    for left, right in rows:
        print(shown(f"{left:{width}}  {right}".rstrip()))
    if system is not None:
        from tamed.cli.export import check_for  # lazy import: most checks are for this system

        check_for(system, given["target"], given["plugin_dirs"])


def _warn_of_variables(job: Job, *, of_services: bool = False) -> None:
    for warning in misspelt_variables(job, of_services=of_services):
        print("tamed: warning:", shown(warning), file=sys.stderr)


def job_of(
    target: str, daemon: Mapping[str, object], log: Mapping[str, object], plugin_dirs: Sequence[str]
) -> Job:
    """Return the job for a target and the options before it."""
    if daemon.get("trust_writable"):
        os.environ[TRUST_WRITABLE] = "1"  # for all processes of the daemon, and before any file is read
    dirs = folders(plugin_dirs)
    return Job(resolve(target, dirs), daemon, log, plugin_dirs=dirs)


def read_job(command: str, *, target: str, words: Sequence[str], **given: Any) -> Job | None:
    """Return the job, with the target's own options; None if they ask for help, which is then printed."""
    job = job_of(target, **given)
    if not words:
        return job
    if job.target.kind is TargetKind.FOREIGN:
        job = job._replace(words=tuple(words), detached=command == "start")
        kind_of(job.target.prefix).check(job)  # raises for wrong words, or prints the help
        return job
    job = job._replace(known=job.deployment())  # read once, for the options and for the services
    inner = service_command(job)
    path = f"tamed {command} {target}"
    try:
        services = parse(inner, words, path)
    except UnknownOption as error:
        before = next(each for each in COMMANDS if each.name == command).all_options()
        if any(error.flag in (*option.flags, *option.off_flags) for option in before):
            remedy = f"options of Tamed go before {target!r}"
            raise UsageError(f"the service has no option {error.flag!r}", remedy=remedy) from None
        raise
    if services is not None:
        return job._replace(services=services)
    from tamed.cli.help import help_page

    print(help_page(inner, path))
    return None


def _tree(service: Service, first: str = "", rest: str = "") -> Iterator[tuple[str, str]]:
    """Yield a line for each service: its name, drawn as a branch, and its description."""
    summary = SECRETS.hidden(str(service.summary))
    yield f"{first}{service.name}", " ".join(filter(None, (type(service).__name__, summary)))
    children = list(service) if isinstance(service, MultiService) else []
    for child in children:
        last = child is children[-1]
        yield from _tree(child, f"{rest}{'└── ' if last else '├── '}", f"{rest}{'    ' if last else '│   '}")


def twistd(words: Sequence[str]) -> int:
    """Run a command line of twistd."""
    from tamed.control.launch import start as start_daemon

    line = kind_of("twisted").command_line(words)
    for notice in line.notices:
        print(f"tamed: {notice}", file=sys.stderr)
    if line.foreground:
        signals: list[int] = []
        atexit.register(_end_as_twistd, signals)  # before the program registers anything, so called last
        ending = _run_here(line.job)
        if ending.signal is not None:
            signals.append(ending.signal)
        return ending.status
    report = start_daemon(line.job, ask_secret)
    if not report.ready:
        print(report.text, file=sys.stderr)
    return report.status


def _end_as_twistd(signals: Sequence[int]) -> None:
    """End by the signal that stopped the program, as twistd does at the end of its shutdown."""
    from tamed.unix.process import end_by_signal  # lazy import: only twistd does so

    for number in signals:
        sys.stdout.flush()
        end_by_signal(number)


def plugins(plugin_dirs: Sequence[str]) -> None:
    """List the plugins of Tamed, then those of other frameworks."""
    dirs = folders(plugin_dirs)
    _show(available(dirs))
    for kind in own_kinds():
        if kind.is_installed():
            print(f"\n{kind.title}s, which run in the same way:")
            _show(kind.found(dirs))


def _show(found: Sequence[Found]) -> None:
    """Print a table of plugins, with a line below each that cannot be run."""
    rows = [
        (each.name, "(cannot be run)" if each.error else each.description, each.package) for each in found
    ]
    names, *lines = table(("NAME", "DESCRIPTION", "PACKAGE"), rows)
    print(names)
    for line, each in zip(lines, found, strict=True):
        print(line)
        if each.error:
            print(f"{'':{names.index('DESCRIPTION')}}{shown(each.error)}")
