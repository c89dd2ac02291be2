"""A job whose target is a Twisted plugin: what the plugin sees of the command in front of its name.

Under twistd the options of a plugin have those of twistd as their ``parent``: they read the pid file there,
the user, the umask, and some set them. So each process that parses a plugin's words gives it such a parent,
with what the operator said.
"""

import grp
import pwd
from collections.abc import Iterator
from contextlib import chdir, nullcontext, suppress
from typing import Any

from tamed.config.job import Job
from tamed.config.settings import Daemon, Log, names_file
from tamed.service.service import Service

__all__ = ["check_words", "twisted_service"]


def check_words(job: Job) -> None:
    """Have the plugin parse the words behind its name.

    Raises UsageError for what is wrong with them, and SystemExit, when all is printed, for ``--help``.
    """
    from tamed.twisted import check_options

    check_options(job.target.name, job.words, job.plugin_dirs, _parent(job))


def twisted_service(job: Job) -> Service:
    """Make the service of a Twisted plugin, whose words may have relative paths in them."""
    from tamed.twisted import make_plugin

    with nullcontext() if job.folder is None else chdir(job.folder):
        return make_plugin(job.target.name, job.words, job.plugin_dirs, _parent(job))


def _parent(job: Job) -> dict[str, Any]:
    """Return the options in front of the plugin's name, as twistd calls them."""
    if job.twistd:
        return dict(job.twistd["options"])
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
