"""Twisted's programs as a kind of target: its plugins, its applications, and twistd's command line.

Importing this loads nothing of Twisted; that is loaded by the first method that needs it.
"""

import grp
import pwd
import sys
from collections.abc import Iterator, Sequence
from contextlib import chdir, nullcontext, suppress
from pathlib import Path
from typing import Any

from tamed.config.job import Job
from tamed.config.kinds import CommandLine, Kind
from tamed.config.settings import Daemon, Log, names_file
from tamed.config.target import Target, TargetKind
from tamed.errors import ApplicationFailed
from tamed.plugins.discovery import Found
from tamed.service.service import Service
from tamed.twisted._claim import claim_reactor, is_installed

__all__ = ["TwistedKind"]


class TwistedKind(Kind):
    """Twisted's programs."""

    title = "Twisted plugin"

    def is_installed(self) -> bool:
        """Tell whether Twisted is installed."""
        return is_installed()

    def prepare(self, job: Job) -> None:
        """Have whoever imports the reactor get Tamed's, and do what options of twistd's say."""
        claim_reactor()
        if job.foreign:
            from tamed.twisted._effects import apply_twistd

            apply_twistd(job.foreign["effects"])

    def has(self, name: str, folders: Sequence[Path]) -> bool:
        """Tell whether a Twisted plugin has this name; that imports all of them."""
        from tamed.twisted._plugins import has_plugin

        return has_plugin(name, folders)

    def found(self, folders: Sequence[Path]) -> Sequence[Found]:
        """Import all modules of plugins, and return the plugins that make services."""
        from tamed.twisted._plugins import all_plugins

        return all_plugins(folders)

    def check(self, job: Job) -> None:
        """Have the plugin parse the words behind its name."""
        from tamed.twisted._options import check_options

        check_options(job.target.name, job.words, job.plugin_dirs, _parent(job))

    def make(self, job: Job) -> Service:
        """Make the service of a plugin, whose words may have relative paths in them."""
        from tamed.twisted._options import make_plugin

        with nullcontext() if job.folder is None else chdir(job.folder):
            return make_plugin(job.target.name, job.words, job.plugin_dirs, _parent(job))

    def adapt(self, value: object, name: str) -> Service | None:
        """Return the service for a Twisted application or service, if the program has loaded Twisted."""
        if "twisted.application.service" not in sys.modules:
            return None
        from twisted.application.service import IService

        from tamed.twisted._service import TwistedService

        if IService(value, None) is None:
            return None
        return TwistedService(value, getattr(IService(value), "name", None) or name)

    def explain(self, what: str, error: Exception) -> ApplicationFailed | None:
        """Say of a program what is wrong if it has tried to install a reactor of its own."""
        if "twisted.internet.error" not in sys.modules:
            return None
        from twisted.internet.error import ReactorAlreadyInstalledError

        if not isinstance(error, ReactorAlreadyInstalledError):
            return None
        return ApplicationFailed(
            what,
            "it installs a reactor of its own, and Tamed runs Twisted on its own event loop",
            "leave that out; --loop chooses the loop",
        )

    def command_line(self, words: Sequence[str]) -> CommandLine:
        """Understand the words behind ``twistd``."""
        if not is_installed():
            raise ApplicationFailed("twistd", "Twisted is not installed", "pip install 'tamed[twisted]'")
        from tamed.twisted._twistd import parse_twistd

        sys.argv[:] = [str(Path(sys.executable).with_name("twistd")), *words]  # what plugins may look at
        said = parse_twistd(words)
        plugin = Target(TargetKind.FOREIGN, said.plugin, "twisted")
        job = Job(
            plugin if said.plugin else Target(TargetKind.FILE, said.file),
            said.daemon,
            said.log,
            plugin_dirs=said.plugin_dirs,
            words=said.words,
            foreign={"options": said.options, "effects": said.effects},
            argv=tuple(sys.argv),
            detached=not said.foreground,
        )
        return CommandLine(job, said.foreground, said.remarks)


def _parent(job: Job) -> dict[str, Any]:
    """Return the options in front of the plugin's name, as twistd calls them.

    Under twistd the options of a plugin have those of twistd as their ``parent``: they read the pid file
    there, the user, the umask, and some set them. So each process that parses a plugin's words gives it such
    a parent, with what the operator said.
    """
    if job.foreign:
        return dict(job.foreign["options"])
    settings = job.settings(None)
    return {"nodaemon": not job.detached, **dict(_of_daemon(settings.daemon)), **dict(_of_log(settings.log))}


def _of_daemon(daemon: Daemon) -> Iterator[tuple[str, object]]:
    yield "pidfile", "" if daemon.pid_file is None else str(daemon.pid_file.absolute())
    with suppress(KeyError):  # whoever is to become that user says that there is none
        if daemon.user:
            yield "uid", int(daemon.user) if daemon.user.isdigit() else pwd.getpwnam(daemon.user).pw_uid
        if daemon.group:
            yield "gid", int(daemon.group) if daemon.group.isdigit() else grp.getgrnam(daemon.group).gr_gid
    if daemon.umask is not None:
        yield "umask", int(daemon.umask)
    if daemon.chroot is not None:
        yield "chroot", str(daemon.chroot.absolute())
    if daemon.directory is not None:
        yield "rundir", str(daemon.directory.absolute())
    if daemon.name:
        yield "prefix", daemon.name


def _of_log(log: Log) -> Iterator[tuple[str, object]]:
    if names_file(log.file):
        yield "logfile", log.file
    elif log.file == "stderr":
        yield "logfile", "-"
    yield "syslog", log.file.partition(":")[0] == "syslog"
