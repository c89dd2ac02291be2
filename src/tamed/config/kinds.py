"""Kinds of target that are not Tamed's own: the programs of other frameworks.

A distribution registers a kind as an entry point of the group ``tamed.targets``. The name of the entry point
is the prefix of such targets, and its value a subclass of `Kind`: with
``crochet = "crochet.tamed:CrochetKind"``, ``tamed run crochet:NAME`` runs one. A name without a prefix is
looked up among Tamed's plugins and the built-in kinds only: searching all distributions takes longer than
everything else before a service starts.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple

from tamed._os.variables import import_variable
from tamed.config.job import Job, Target, TargetKind
from tamed.config.settings import Settings
from tamed.errors import ApplicationFailed, TamedError, UsageError, reason
from tamed.plugins.discovery import Found, find, names
from tamed.service.service import Service

__all__ = ["CommandLine", "Kind", "kind_of", "own_kinds", "parse", "resolve"]

_GROUP: Final = "tamed.targets"
_OWN: Final = {"twisted": "tamed.twisted.kind:TwistedKind"}


class CommandLine(NamedTuple):
    """A command line of the framework's own runner, parsed: the job, and whether it runs in the foreground.

    ``notices`` are printed for the user.
    """

    job: Job
    foreground: bool
    notices: Sequence[str] = ()


class Kind:
    """A kind of target. Every method is optional: the default means that the kind lacks the feature.

    ``title`` is the name of such a target in messages.
    """

    title: str = ""

    def is_installed(self) -> bool:
        """Return whether the framework is installed, without loading it."""
        return True

    def prepare(self, job: Job) -> None:
        """Prepare the process, before any code of an application is loaded."""

    def has(self, name: str, folders: Sequence[Path]) -> bool:
        """Return whether the kind has a target of this name; called if no plugin of Tamed has the name."""
        return False

    def found(self, folders: Sequence[Path]) -> Sequence[Found]:
        """Return all its targets that have a name, for ``tamed plugins``."""
        return ()

    def check(self, job: Job) -> None:
        """Parse the words after the target's name, in the command that is about to run it.

        Raises UsageError for wrong words, and SystemExit for ``--help``, after printing it.
        """

    def make(self, job: Job, settings: Settings) -> Service:
        """Make the service of a target, in the process that runs it; ``settings`` are those of the daemon."""
        raise UsageError(f"target {job.target.name!r}", "targets of this kind cannot be run by name")

    def adapt(self, value: object, name: str) -> Service | None:
        """Return the service for the value of a program's variable; None if it is not of this kind."""
        return None

    def explain(self, what: str, error: Exception) -> TamedError | None:
        """Return a better error for an exception raised while a program was loaded; None if there is none."""
        return None

    def command_line(self, words: Sequence[str]) -> CommandLine:
        """Parse a command line of the framework's own runner."""
        raise UsageError("command line", "targets of this kind have no command line")


def own_kinds() -> Iterator[Kind]:
    """Yield the kinds that come with Tamed, if their modules are present, without loading a framework."""
    for prefix in _OWN:
        if (kind := _own(prefix)) is not None:
            yield kind


def kind_of(prefix: str) -> Kind:
    """Return the kind of target with a prefix. Raises UsageError if there is none."""
    if prefix in _OWN and (kind := _own(prefix)) is not None:
        return kind
    value = _of_others().get(prefix)
    if value is None:
        raise UsageError(f"targets {prefix}:NAME", "no installed package provides this kind of target")
    try:
        return _made(value)
    except (ImportError, AttributeError) as error:
        raise ApplicationFailed(f"the kind of target {prefix}: cannot be imported", reason(error)) from error


def parse(text: str) -> Target:
    """Return the target that a text names, from its spelling and the known prefixes."""
    target = Target.parse(text)
    prefix, _, name = text.partition(":")
    if target.kind is TargetKind.MODULE and _is_prefix(prefix):
        return Target(TargetKind.FOREIGN, name, prefix)
    return target


def resolve(text: str, folders: Sequence[Path] = ()) -> Target:
    """Return the target that a text names; ``folders`` are searched for plugins first.

    The other kinds are searched only for a name that no plugin of Tamed has: for Twisted that imports all its
    plugins. Raises as `Target.parse` does.
    """
    target = parse(text)
    if target.kind is not TargetKind.PLUGIN or text != target.name:  # a prefix names the kind
        return target
    try:
        find(target.name, folders)
    except UsageError:
        if target.name not in names(folders):
            for prefix in _OWN:
                kind = _own(prefix)
                if kind is not None and kind.is_installed() and kind.has(target.name, folders):
                    return Target(TargetKind.FOREIGN, target.name, prefix)
    except TamedError:  # it exists but cannot run: the command that runs it reports that
        pass
    return target


def _is_prefix(text: str) -> bool:
    if text in _OWN:
        return _own(text) is not None
    return text.isidentifier() and find_spec(text) is None and text in _of_others()


@lru_cache
def _own(prefix: str) -> Kind | None:
    try:
        return _made(_OWN[prefix])
    except ModuleNotFoundError:
        return None


@lru_cache
def _of_others() -> dict[str, str]:
    from importlib.metadata import entry_points  # slow, so the last resort

    return {each.name: each.value for each in entry_points(group=_GROUP)}


@lru_cache
def _made(value: str) -> Kind:
    kind: Kind = import_variable(value)()
    return kind
