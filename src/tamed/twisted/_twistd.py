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

from tamed.errors import UsageError
from tamed.twisted._claim import claim_reactor
from tamed.twisted._plugins import all_makers

__all__ = ["Twistd", "parse_twistd"]

_OTHER_REACTORS: Final = ("cf", "gi", "glib2", "gtk2", "gtk3", "iocp", "win32", "wx")
"""Reactors that a program has a reason to ask for: they run inside a window system's loop, or on Windows."""
_ON_OUR_LOOP: Final = ("asyncio", "default")
_UMASK: Final = 0o077
"""twistd's own for a daemon."""


@dataclass(frozen=True, slots=True)
class Twistd:
    """What a command line of twistd's says.

    It runs the ``plugin``, with the ``words`` behind its name, or the ``file``; the other is empty.
    ``daemon`` and ``log`` are flags of the settings, ``effects`` is what `apply_twistd` does, and ``remarks``
    are for whoever typed it.
    """

    file: str
    plugin: str
    words: tuple[str, ...]
    foreground: bool
    daemon: Mapping[str, object] = field(default_factory=dict)
    log: Mapping[str, object] = field(default_factory=dict)
    effects: Mapping[str, object] = field(default_factory=dict)
    remarks: Sequence[str] = ()


def parse_twistd(words: Sequence[str]) -> Twistd:
    """Parse the words behind ``twistd``.

    Raises UsageError for what is wrong or not supported, and SystemExit, when all is printed, for ``--help``,
    ``--version`` and their like.
    """
    here = str(Path.cwd())
    sys.path.insert(0, here)  # as twistd does; plugins and what they import are found there
    claim_reactor()
    options = _Options()
    try:
        options.parseOptions(list(words) or ["--help"])
    except BadOptions as error:
        remedy = "`tamed twistd --help` lists the options"
        raise UsageError(f"twistd: {str(error).rstrip('.')}", remedy=remedy) from error
    _refuse_what_is_not_supported(options)
    return Twistd(
        file=str(Path(options["python"]).absolute()) if options["python"] else "",
        plugin=options.subCommand or "",
        words=options.words,
        foreground=_in_foreground(options),
        daemon=dict(_daemon(options)),
        log=dict(_log(options)),
        effects=dict(_effects(options, here)),
        remarks=tuple(_remarks(options)),
    )


class _Options(ServerOptions):
    """Twisted's own, which notes what it would do at once, and finds plugins without a cache."""

    synopsis = "Usage: tamed twistd [options]"

    def __init__(self) -> None:
        self.words: tuple[str, ...] = ()
        self.logger_name: str | None = None
        self.given: set[str] = set()
        super().__init__()

    @property
    def subCommands(self) -> Iterator[tuple[str, None, Any, str]]:  # noqa: N802
        """Yield the plugins, as ServerOptions does."""
        self.loadedPlugins = {maker.tapname: maker for maker in all_makers()}
        for maker in sorted(self.loadedPlugins.values(), key=attrgetter("tapname")):
            yield maker.tapname, None, lambda maker=maker: self._of_plugin(maker), maker.description

    def _of_plugin(self, maker: Any) -> Any:
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

    There may be several of one program, and what tells them apart is the pid file. In syslog the name is
    what a line begins with.
    """
    if options["syslog"]:
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


def _effects(options: _Options, here: str) -> Iterator[tuple[str, object]]:
    yield "path", here
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
