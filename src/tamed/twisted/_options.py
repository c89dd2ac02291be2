"""The options of Twisted's plugins: parsed by their own class, from the words behind their name."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from twisted.application.service import Application, IService
from twisted.python.reflect import namedAny
from twisted.python.usage import UsageError as BadOptions
from twisted.scripts._twistd_unix import ServerOptions  # of which `twisted.scripts.twistd` has the name

from tamed.errors import ApplicationFailed, TamedError, UsageError, reason
from tamed.service.service import Service
from tamed.twisted._plugins import find_maker
from tamed.twisted._service import TwistedService

__all__ = ["check_options", "make_plugin"]


class _OptionsAbove(ServerOptions):
    """The command in front of a plugin's name: twistd's options, which the plugin's may read and set."""

    synopsis = "Usage: tamed run [daemon options]"

    def __init__(self, name: str, values: Mapping[str, Any]) -> None:
        super().__init__()
        self.update(values)
        if self["logger"] is not None:
            self["logger"] = namedAny(self["logger"])
        self.subCommand = name


class _OptionsAboveWorker(_OptionsAbove):
    """The same in a process that belongs to the daemon already.

    What a plugin sets has been obeyed by the command. The pid file has been written, too, with the daemon's
    pid: a plugin that sets it and looks for another one of its kind there (Carbon does) would find this one.
    So what is set stands for no file.
    """

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, "" if key == "pidfile" else value)


def check_options(
    name: str,
    words: Sequence[str],
    folders: Sequence[Path] = (),
    parent: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Parse the words behind a plugin's name, in the command that is about to run it.

    ``parent`` has the values of twistd's own options that differ from their defaults. Raises UsageError for
    what is wrong with the words, and SystemExit, when all is printed, for ``--help``.
    """
    _parse(find_maker(name, folders), words, _OptionsAbove(name, parent))


def make_plugin(
    name: str,
    words: Sequence[str],
    folders: Sequence[Path] = (),
    parent: Mapping[str, Any] = MappingProxyType({}),
) -> Service:
    """Return the service that a plugin makes from the words behind its name; see `check_options`.

    Raises UsageError for what is wrong with them, and ApplicationFailed for what the plugin raises.
    """
    maker = find_maker(name, folders)
    above = _OptionsAboveWorker(name, parent)
    options = _parse(maker, words, above)
    application = Application(name, above["uid"], above["gid"])  # some look at their parent
    try:
        service: Any = IService(maker.makeService(options))
        service.setServiceParent(application)
    except (TamedError, BadOptions) as error:
        raise _told(name, error) from error
    except Exception as error:
        raise ApplicationFailed(
            f"Twisted plugin {name} raised while it made its service", reason(error)
        ) from error
    return TwistedService(application, name)


def _parse(maker: Any, words: Sequence[str], parent: _OptionsAbove) -> Any:
    name = str(parent.subCommand)
    try:
        options = parent.subOptions = maker.options()
        options.parent = parent
        options.parseOptions(list(words))
    except BadOptions as error:
        raise _told(name, error) from error
    except Exception as error:
        what = f"Twisted plugin {name} raised while it read its options"
        raise ApplicationFailed(what, reason(error)) from error
    return options


def _told(name: str, error: Exception) -> TamedError:
    if isinstance(error, TamedError):
        return error
    text = str(error).rstrip(".")
    return UsageError(f"{name}: {text}", remedy=f"`tamed run {name} --help` lists the options")
