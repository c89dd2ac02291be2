"""The options of Twisted's plugins: parsed by their own class, from the words behind their name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.application.app import ServerOptions
from twisted.application.service import Application, IService
from twisted.python.usage import UsageError as BadOptions

from tamed.errors import ApplicationFailed, TamedError, UsageError, reason
from tamed.service import Service
from tamed.twisted._plugins import find_maker
from tamed.twisted._service import TwistedService

__all__ = ["check_options", "make_plugin"]


class _Above(ServerOptions):
    """The command in front of a plugin's name, as the plugin's options may look at it."""

    synopsis = "Usage: tamed run [daemon options]"

    def __init__(self, name: str) -> None:
        super().__init__()
        self.subCommand = name


def check_options(name: str, words: Sequence[str], folders: Sequence[Path] = ()) -> None:
    """Parse the words behind a plugin's name.

    Raises UsageError for what is wrong with them, and SystemExit, when all is printed, for ``--help``.
    """
    _parse(find_maker(name, folders), name, words)


def make_plugin(name: str, words: Sequence[str], folders: Sequence[Path] = ()) -> Service:
    """Return the service that a plugin makes from the words behind its name.

    Raises UsageError for what is wrong with them, and ApplicationFailed for what the plugin raises.
    """
    maker = find_maker(name, folders)
    options = _parse(maker, name, words)
    application = Application(name)  # some look at their parent
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


def _parse(maker: Any, name: str, words: Sequence[str]) -> Any:
    try:
        options = maker.options()
        options.parent = _Above(name)
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
