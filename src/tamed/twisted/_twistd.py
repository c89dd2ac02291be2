"""twistd's command line: parsed by Twisted's own options class, and translated into Tamed's settings.

Some of its options have no setting: they change the process, before the program is loaded.
"""

import atexit
import hashlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from twisted.python.reflect import namedAny
from twisted.python.usage import UsageError as BadOptions
from twisted.python.util import spewer

from tamed._os.trust import require_trusted
from tamed.config.job import Job, Target, TargetKind
from tamed.config.kinds import CommandLine
from tamed.errors import ApplicationFailed, PermissionRefused, UsageError, reason
from tamed.twisted._compat import ServerOptions
from tamed.twisted._logging import log_to_observer_of
from tamed.twisted._plugins import all_makers

if TYPE_CHECKING:
    import cProfile

__all__ = ["apply_twistd", "parse_twistd"]

_OTHER_REACTORS: Final = ("cf", "gi", "glib2", "gtk2", "gtk3", "iocp", "win32", "wx")
"""Reactors that a program may need: they run inside a window system's loop, or on Windows."""
_ON_OUR_LOOP: Final = ("asyncio", "default")
_UMASK: Final = 0o077
"""twistd's default for a daemon."""
_PREFIX: Final = "twisted"
"""twistd's default for syslog."""


def parse_twistd(words: Sequence[str]) -> CommandLine:
    """Parse the arguments after ``twistd`` into a job for a plugin or an application file.

    The job has the options before the plugin's name, as settings and as effects, which `apply_twistd`
    applies. Raises UsageError for invalid or unsupported options, and SystemExit, after printing, for
    ``--help``, ``--version`` and the like.
    """
    sys.argv[:] = [str(Path(sys.executable).with_name("twistd")), *words]  # plugins may read it
    here = Path.cwd()
    folders, why_not = _trusted(here)  # plugins and their imports are found there
    sys.path[:0] = map(str, folders)
    options = _Options(folders)
    try:
        options.parseOptions(list(words) or ["--help"])
    except BadOptions as error:
        remedy = why_not or "`tamed twistd --help` lists the options"
        raise UsageError(f"twistd: {str(error).rstrip('.')}", remedy=remedy) from error
    except Exception as error:
        what = f"Twisted plugin {options.subCommand} raised while parsing its options"
        raise ApplicationFailed(what if options.subCommand else "twistd's options", reason(error)) from error
    _refuse_what_is_not_supported(options)
    file = Path(options["python"]).absolute() if options["python"] else None
    is_missed = bool(why_not) and (file is None or file.parent != here)
    plugin = Target(TargetKind.FOREIGN, options.subCommand or "", "twisted")
    foreground = _in_foreground(options)
    job = Job(
        plugin if plugin.name else Target(TargetKind.FILE, str(file)),
        dict(_daemon(options)),
        dict(_log(options)),
        plugin_dirs=folders,
        words=options.words,
        foreign={"options": options.before_plugin, "effects": dict(_effects(options, folders))},
        argv=tuple(sys.argv),
        detached=not foreground,
    )
    return CommandLine(job, foreground, (*_notices(options), *([why_not] if is_missed else [])))


def apply_twistd(effects: Mapping[str, Any]) -> None:
    """Apply the effects of a command line, as `parse_twistd` returned them.

    ``path`` are folders to import from, ``logger`` the name of a factory of log observers, ``profile`` the
    file for a profile of all that follows (as statistics with ``savestats``), ``spew`` traces every line, and
    ``debug`` opens the debugger at a SIGUSR2.
    """
    sys.path[:0] = [folder for folder in effects["path"] if folder not in sys.path]
    if "logger" in effects:
        log_to_observer_of(namedAny(effects["logger"]))
    if "profile" in effects:
        _profile(Path(effects["profile"]), as_statistics=effects.get("savestats", False))
    if effects.get("spew"):
        threading.settrace(spewer)
        sys.settrace(spewer)
    if effects.get("debug"):
        signal.signal(signal.SIGUSR2, lambda *_: breakpoint())


class _Options(ServerOptions):
    """Twisted's options, but effects are recorded for later, and plugins are found without a cache."""

    synopsis = "Usage: tamed twistd [options]"

    def __init__(self, folders: Sequence[Path]) -> None:
        self.words: tuple[str, ...] = ()
        self.before_plugin: dict[str, Any] = {}
        self._folders = folders
        self.logger_name: str | None = None
        super().__init__()

    @property
    def subCommands(self) -> Iterator[tuple[str, None, Any, str]]:  # noqa: N802
        """Yield the plugins, as ServerOptions does."""
        self.loadedPlugins = {maker.tapname: maker for maker in all_makers(self._folders)}
        for maker in sorted(self.loadedPlugins.values(), key=attrgetter("tapname")):
            yield maker.tapname, None, lambda maker=maker: self._of_plugin(maker), maker.description

    def _of_plugin(self, maker: Any) -> Any:
        self.before_plugin = dict(self)
        options = maker.options()
        parse = options.parseOptions

        def record_and_parse(words: Sequence[str]) -> None:
            self.words = tuple(words)
            parse(words)

        options.parseOptions = record_and_parse
        return options

    def opt_reactor(self, shortName: str) -> None:  # noqa: N803
        """Accepted, and replaced by Tamed's reactor; those of window systems are refused."""
        if shortName in _OTHER_REACTORS:
            raise BadOptions(f"--reactor {shortName}: Tamed runs Twisted on its own event loop")
        self["reactor"] = shortName

    opt_r = opt_reactor

    def opt_spew(self) -> None:
        """Print an insanely verbose log of everything that happens."""
        self["spew"] = True

    def opt_file(self, name: str) -> None:
        """Not supported."""
        raise BadOptions(f"--file {name}: saved applications are not supported; use the .tac file")

    opt_f = opt_file

    def opt_source(self, name: str) -> None:
        """Not supported."""
        raise BadOptions(f"--source {name}: saved applications are not supported; use the .tac file")

    opt_s = opt_source

    def postOptions(self) -> None:  # noqa: N802
        """Check the options, and keep the name of the logger, which Twisted replaces with an object."""
        self.logger_name = self["logger"]
        super().postOptions()


def _refuse_what_is_not_supported(options: _Options) -> None:
    if options["encrypted"]:
        raise UsageError("twistd: --encrypted", "saved applications are not supported", "use the .tac file")
    if not options["python"] and not options.subCommand:
        why = "twistd.tap, the default of twistd, is a saved application, which is not supported"
        raise UsageError("twistd: nothing to run", why, "use -y FILE, or the name of a plugin")
    if options["profile"] and options["profiler"].lower() != "cprofile":
        raise UsageError(f"twistd: --profiler {options['profiler']}", "not supported", "use cprofile")
    if options["logfile"] == "-" and not _in_foreground(options):
        raise UsageError("twistd: --logfile -", "a daemon has no standard output", "pass --nodaemon too")


def _in_foreground(options: _Options) -> bool:
    return bool(options["nodaemon"] or options["debug"])


def _daemon(options: _Options) -> Iterator[tuple[str, object]]:
    yield "name", _name(options)
    if options["pidfile"]:
        yield "pid_file", options["pidfile"]
    for key, name in (("uid", "user"), ("gid", "group")):
        if options[key] is not None:
            yield name, str(options[key])
    umask = options["umask"]
    if umask is not None or not _in_foreground(options):
        yield "umask", f"{_UMASK if umask is None else umask:04o}"
    if options["chroot"] is not None:
        yield "chroot", str(Path(options["chroot"]).absolute())
    if options["rundir"] != ".":
        yield "directory", str(Path(options["rundir"]).absolute())


def _name(options: _Options) -> str:
    """Return the instance's name.

    The operator may choose it as the prefix of syslog lines. Otherwise several instances of one program may
    exist, and the pid file distinguishes them.
    """
    if options["prefix"] != _PREFIX:
        return str(options["prefix"])
    distinct = options["pidfile"] or os.fspath(Path.cwd())
    mark = hashlib.blake2s(os.fsencode(distinct), digest_size=4).hexdigest()
    return f"{options.subCommand or Path(options['python']).stem}-{mark}"


def _log(options: _Options) -> Iterator[tuple[str, object]]:
    if options["syslog"]:
        yield "file", "syslog"
    elif options["logfile"] == "-":
        yield "file", "stderr"
    elif options["logfile"] or not _in_foreground(options):
        yield "file", str(Path(options["logfile"] or "twistd.log").absolute())


def _effects(options: _Options, folders: Sequence[Path]) -> Iterator[tuple[str, object]]:
    yield "path", [str(folder) for folder in folders]
    if options.logger_name is not None:
        yield "logger", options.logger_name
    if options["profile"]:
        yield "profile", str(Path(options["profile"]).absolute())
        yield "savestats", bool(options["savestats"])
    for key in ("spew", "debug"):
        if options.get(key):
            yield key, True


def _notices(options: _Options) -> Iterator[str]:
    reactor = options.get("reactor", "default")
    if reactor not in _ON_OUR_LOOP:
        yield f"--reactor {reactor}: Tamed runs Twisted on its own event loop instead"
    if options["euid"] and options["uid"] is not None:
        yield "--euid: Tamed drops privileges permanently"


def _trusted(folder: Path) -> tuple[tuple[Path, ...], str]:
    """Return the folders to import from, this one or none, and the reason if root must not import from it."""
    plugins = folder / "twisted" / "plugins"
    try:
        for each in (folder, plugins) if plugins.is_dir() else (folder,):
            require_trusted(each, "folder")
    except PermissionRefused as error:
        return (), f"nothing is imported from {folder}: {error}"
    return (folder,), ""


def _profile(file: Path, *, as_statistics: bool) -> None:
    import cProfile  # lazy import: slower than everything else in this file

    profile = cProfile.Profile()
    atexit.register(partial(_save_profile, profile, file, as_statistics=as_statistics))
    profile.enable()


def _save_profile(profile: "cProfile.Profile", file: Path, *, as_statistics: bool) -> None:
    profile.disable()
    if as_statistics:
        profile.dump_stats(file)
        return
    import pstats

    with file.open("w") as stream:
        pstats.Stats(profile, stream=stream).strip_dirs().sort_stats(-1).print_stats()
