"""twistd's command line: parsed by Twisted's own options class, and said in Tamed's words."""

import hashlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

from twisted.python.usage import UsageError as BadOptions
from twisted.scripts._twistd_unix import ServerOptions  # of which `twisted.scripts.twistd` has the name

from tamed._trust import require_trusted
from tamed.errors import ApplicationFailed, PermissionRefused, UsageError, reason
from tamed.twisted._claim import claim_reactor
from tamed.twisted._plugins import all_makers

__all__ = ["Twistd", "parse_twistd"]

_OTHER_REACTORS: Final = ("cf", "gi", "glib2", "gtk2", "gtk3", "iocp", "win32", "wx")
"""Reactors that a program has a reason to ask for: they run inside a window system's loop, or on Windows."""
_ON_OUR_LOOP: Final = ("asyncio", "default")
_UMASK: Final = 0o077
"""twistd's own for a daemon."""
_PREFIX: Final = "twisted"
"""twistd's own for syslog."""


@dataclass(frozen=True, slots=True)
class Twistd:
    """What a command line of twistd's says.

    It runs the ``plugin``, with the ``words`` behind its name, or the ``file``; the other is empty.
    ``plugin_dirs`` are searched for plugins besides the path. ``options`` are those in front of the plugin's
    name, and ``daemon`` and ``log`` are flags of the settings, from what the plugin has made of these.
    ``effects`` is what `apply_twistd` does, and ``remarks`` are for whoever typed it.
    """

    file: str
    plugin: str
    words: tuple[str, ...]
    foreground: bool
    plugin_dirs: tuple[Path, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)
    daemon: Mapping[str, object] = field(default_factory=dict)
    log: Mapping[str, object] = field(default_factory=dict)
    effects: Mapping[str, object] = field(default_factory=dict)
    remarks: Sequence[str] = ()


def parse_twistd(words: Sequence[str]) -> Twistd:
    """Parse the words behind ``twistd``.

    Raises UsageError for what is wrong or not supported, and SystemExit, when all is printed, for ``--help``,
    ``--version`` and their like.
    """
    here = Path.cwd()
    folders, why_not = _trusted(here)  # plugins and what they import are found there
    sys.path[:0] = map(str, folders)
    claim_reactor()
    options = _Options(folders)
    try:
        options.parseOptions(list(words) or ["--help"])
    except BadOptions as error:
        remedy = why_not or "`tamed twistd --help` lists the options"
        raise UsageError(f"twistd: {str(error).rstrip('.')}", remedy=remedy) from error
    except Exception as error:
        what = f"Twisted plugin {options.subCommand} raised while it read its options"
        raise ApplicationFailed(what if options.subCommand else "twistd's options", reason(error)) from error
    _refuse_what_is_not_supported(options)
    file = Path(options["python"]).absolute() if options["python"] else None
    is_missed = bool(why_not) and (file is None or file.parent != here)
    return Twistd(
        file="" if file is None else str(file),
        plugin=options.subCommand or "",
        words=options.words,
        foreground=_in_foreground(options),
        plugin_dirs=folders,
        options=options.before_plugin,
        daemon=dict(_daemon(options)),
        log=dict(_log(options)),
        effects=dict(_effects(options, folders)),
        remarks=(*_remarks(options), *([why_not] if is_missed else [])),
    )


class _Options(ServerOptions):
    """Twisted's own, which notes what it would do at once, and finds plugins without a cache."""

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

        def note_and_parse(words: Sequence[str]) -> None:
            self.words = tuple(words)
            parse(words)

        options.parseOptions = note_and_parse
        return options

    def opt_reactor(self, shortName: str) -> None:  # noqa: N803
        """Which reactor to use: Tamed's, whatever this says, unless it is one of a window system."""
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
        """Check the options, and keep the name of the logger, which becomes an object here."""
        self.logger_name = self["logger"]
        super().postOptions()


def _refuse_what_is_not_supported(options: _Options) -> None:
    if options["encrypted"]:
        raise UsageError("twistd: --encrypted", "saved applications are not supported", "use the .tac file")
    if not options["python"] and not options.subCommand:
        why = "twistd.tap, which twistd would look for, is a saved application: they are not supported"
        raise UsageError("twistd: nothing to run", why, "say -y FILE, or the name of a plugin")
    if options["profile"] and options["profiler"].lower() != "cprofile":
        raise UsageError(f"twistd: --profiler {options['profiler']}", "not supported", "use cprofile")
    if options["logfile"] == "-" and not _in_foreground(options):
        raise UsageError("twistd: --logfile -", "a daemon has no standard output", "say --nodaemon too")


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

    The operator may choose it: in syslog it is what a line begins with. Else there may be several of one
    program, and what tells them apart is the pid file.
    """
    if options["prefix"] != _PREFIX:
        return str(options["prefix"])
    told_by = options["pidfile"] or os.fspath(Path.cwd())
    mark = hashlib.blake2s(os.fsencode(told_by), digest_size=4).hexdigest()
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


def _remarks(options: _Options) -> Iterator[str]:
    reactor = options.get("reactor", "default")
    if reactor not in _ON_OUR_LOOP:
        yield f"--reactor {reactor}: Tamed runs Twisted on its own event loop instead"
    if options["euid"] and options["uid"] is not None:
        yield "--euid: Tamed gives up privileges for good"


def _trusted(folder: Path) -> tuple[tuple[Path, ...], str]:
    """Return what is imported from, this folder or nothing, and why not if root must not."""
    plugins = folder / "twisted" / "plugins"
    try:
        for each in (folder, plugins) if plugins.is_dir() else (folder,):
            require_trusted(each, "folder")
    except PermissionRefused as error:
        return (), f"nothing is imported from {folder}: {error}"
    return (folder,), ""
