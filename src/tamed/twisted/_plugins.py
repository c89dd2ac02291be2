"""Twisted's plugins for services: found by importing them, and created from the arguments after their name.

Twisted keeps a cache beside its plugins, ``dropin.cache``: a pickle that every user with permission writes.
Here it is neither read nor written: the modules in ``twisted.plugins`` only declare their plugins. The
options of a plugin are parsed by its own class.
"""

import importlib
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted import plugins as plugins_package
from twisted.application.service import Application, IService, IServiceMaker
from twisted.plugin import IPlugin
from twisted.python.reflect import namedAny
from twisted.python.usage import UsageError as BadOptions

from tamed._os.identity import Identity
from tamed._os.text import did_you_mean
from tamed._os.trust import require_trusted
from tamed.config.job import Job, read_settings
from tamed.config.settings import Daemon, Log, Settings, names_file
from tamed.errors import ApplicationFailed, ConfigurationError, TamedError, UsageError, reason
from tamed.plugins.discovery import Found
from tamed.service.service import Service
from tamed.twisted._compat import ServerOptions
from tamed.twisted.services import TwistedService

__all__ = ["all_makers", "all_plugins", "check_options", "has_plugin", "make_plugin"]


def all_plugins(folders: Sequence[Path] = ()) -> list[Found]:
    """Import all modules of plugins and return the plugins for services, sorted by name.

    ``folders`` are searched besides the path; the modules are in their folder ``twisted/plugins``.
    """
    found = []
    for module, makers, error in _modules(folders):
        if error is not None:
            found.append(Found(module.rpartition(".")[2], "", module, reason(error)))
        found += [Found(maker.tapname, maker.description, module, None) for maker in makers]
    return sorted(found, key=lambda each: each.name)


def all_makers(folders: Sequence[Path]) -> list[Any]:
    """Return the IServiceMakers of all plugins, without those in modules that cannot be imported."""
    return [maker for _, makers, _ in _modules(folders) for maker in makers]


def has_plugin(name: str, folders: Sequence[Path] = ()) -> bool:
    """Return whether a Twisted plugin has this name."""
    return any(maker.tapname == name for maker in all_makers(folders))


def check_options(job: Job) -> None:
    """Parse the arguments after a plugin's name, in the command that will run it.

    Raises UsageError for invalid arguments, and SystemExit for ``--help``, after printing.
    """
    above = _OptionsAbove(job, read_settings(job, None))
    _parse(_find_maker(job.target.name, job.plugin_dirs), job, above)


def make_plugin(job: Job, settings: Settings) -> Service:
    """Return the service that a plugin creates from the arguments after its name.

    Raises UsageError for invalid arguments, and ApplicationFailed if the plugin raises.
    """
    name = job.target.name
    maker = _find_maker(name, job.plugin_dirs)
    above = _OptionsAboveWorker(job, settings)
    options = _parse(maker, job, above)
    application = Application(name, above["uid"], above["gid"])  # some services read their parent
    try:
        service: Any = IService(maker.makeService(options))
        service.setServiceParent(application)
    except (TamedError, BadOptions) as error:
        raise _own_error(name, error) from error
    except Exception as error:
        raise ApplicationFailed(
            f"Twisted plugin {name} raised while making its service", reason(error)
        ) from error
    return TwistedService(application, name)


class _OptionsAbove(ServerOptions):
    """The ``parent`` of a plugin's options: twistd's own, with the values of Tamed's settings.

    Plugins read the pid file, the user and the umask there, and some set them. So each process that parses a
    plugin's arguments provides such a parent.
    """

    synopsis = "Usage: tamed run [daemon options]"

    def __init__(self, job: Job, settings: Settings) -> None:
        super().__init__()
        self.update(_twistd_options(job, settings))
        if self["logger"] is not None:
            self["logger"] = namedAny(self["logger"])
        self.subCommand = job.target.name


class _OptionsAboveWorker(_OptionsAbove):
    """The same in a process of the daemon.

    The command has already applied the plugin's settings. The daemon has written the pid file, too: a plugin
    that sets one and looks for another instance of itself there (as Carbon does) would find this one. So the
    pid file is always empty here, for none.
    """

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, "" if key == "pidfile" else value)


def _parse(maker: Any, job: Job, parent: _OptionsAbove) -> Any:
    name = job.target.name
    try:
        options = parent.subOptions = maker.options()
        options.parent = parent
        options.parseOptions(list(job.words))
    except BadOptions as error:
        raise _own_error(name, error) from error
    except Exception as error:
        what = f"Twisted plugin {name} raised while parsing its options"
        raise ApplicationFailed(what, reason(error)) from error
    return options


def _own_error(name: str, error: Exception) -> TamedError:
    if isinstance(error, TamedError):
        return error
    text = str(error).rstrip(".")
    return UsageError(f"{name}: {text}", remedy=f"`tamed run {name} --help` lists the options")


def _twistd_options(job: Job, settings: Settings) -> dict[str, Any]:
    """Return the settings of a job by twistd's names, where they differ from its defaults."""
    if job.foreign:
        return dict(job.foreign["options"])
    return {"nodaemon": not job.detached, **dict(_of_daemon(settings.daemon)), **dict(_of_log(settings.log))}


def _of_daemon(daemon: Daemon) -> Iterator[tuple[str, object]]:
    yield "pidfile", "" if daemon.pid_file is None else str(daemon.pid_file.absolute())
    with suppress(ConfigurationError):  # an unknown user or group is reported where it is applied
        identity = Identity.resolve(daemon.user, daemon.group)
        if daemon.user:
            yield "uid", identity.uid
        if daemon.group:
            yield "gid", identity.gid
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


def _find_maker(name: str, folders: Sequence[Path]) -> Any:
    """Return the IServiceMaker of this name.

    Raises UsageError if there is none, and ApplicationFailed if a module that cannot be imported may have it.
    """
    maker = next((each for each in all_makers(folders) if each.tapname == name), None)
    if maker is not None:
        return maker
    known = []
    for module, makers, error in _modules(folders):
        known += [each.tapname for each in makers]
        if error is not None and name in module:
            raise ApplicationFailed(f"{module} cannot be imported", reason(error)) from error
    remedy = did_you_mean(name, known, "`tamed plugins` lists them")
    raise UsageError(f"unknown Twisted plugin {name!r}", remedy=remedy)


def _modules(folders: Sequence[Path]) -> Iterator[tuple[str, list[Any], Exception | None]]:
    """Import each module of plugins; yield its name and its IServiceMakers, or the error of the import."""
    _add_to_path(folders)
    for info in pkgutil.iter_modules(plugins_package.__path__, f"{plugins_package.__name__}."):
        try:
            module = importlib.import_module(info.name)
        except Exception as error:  # any exception: one broken module must not hide the others
            yield info.name, [], error
            continue
        yield info.name, [value for value in vars(module).values() if _is_maker(value)], None


def _is_maker(value: object) -> bool:
    return bool(IPlugin.providedBy(value) and IServiceMaker.providedBy(value))


def _add_to_path(folders: Sequence[Path]) -> None:
    """Add these folders' ``twisted/plugins`` to the plugin path, and the folders to the import path."""
    for folder in folders:
        modules = folder / "twisted" / "plugins"
        if modules.is_dir() and str(modules) not in plugins_package.__path__:
            require_trusted(modules, "plugin folder")
            plugins_package.__path__.append(str(modules))
            sys.path.append(str(folder))  # last, where it shadows nothing
