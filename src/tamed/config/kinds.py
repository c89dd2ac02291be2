"""Kinds of target that are not Tamed's own: the programs of other frameworks.

A distribution offers one as an entry point of the group ``tamed.targets``. The name of the entry point is the
prefix of such targets, and its value a subclass of `Kind`: ``crochet = "crochet.tamed:CrochetKind"`` lets
``tamed run crochet:NAME`` run one. What is named without a prefix is left to Tamed and to the kinds that come
with it: to look through all distributions takes longer than all else that happens before a service starts.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple

from tamed._os.variables import import_variable
from tamed.config.job import Job
from tamed.config.settings import Settings
from tamed.config.target import Target, TargetKind
from tamed.errors import ApplicationFailed, TamedError, UsageError, reason
from tamed.plugins.discovery import Found, find, names
from tamed.service.service import Service

__all__ = ["CommandLine", "Kind", "kind_of", "own_kinds", "parse", "resolve"]

_GROUP: Final = "tamed.targets"
_OWN: Final = {"twisted": "tamed.twisted.kind:TwistedKind"}


class CommandLine(NamedTuple):
    """What a command line of the framework's own says: the job, and whether it runs in the foreground.

    ``remarks`` are for whoever typed it.
    """

    job: Job
    foreground: bool
    remarks: Sequence[str] = ()


class Kind:
    """A kind of target. Each method may be left as it is: then that is what this kind has not.

    ``title`` is what such a target is called in messages.
    """

    title: str = ""

    def is_installed(self) -> bool:
        """Tell whether the framework is installed, without loading it."""
        return True

    def prepare(self, job: Job) -> None:
        """See to what must come before any code of an application is loaded."""

    def has(self, name: str, folders: Sequence[Path]) -> bool:
        """Tell whether this is one of its targets, for a name that nobody has among Tamed's plugins."""
        return False

    def found(self, folders: Sequence[Path]) -> Sequence[Found]:
        """Return all its targets that have a name, for a list of them."""
        return ()

    def check(self, job: Job) -> None:
        """Parse the words behind the target's name, in the command that is about to run it.

        Raises UsageError for what is wrong with them, and SystemExit, when all is printed, for ``--help``.
        """

    def make(self, job: Job, settings: Settings) -> Service:
        """Make the service of a target, in the process that runs it; ``settings`` are those of the daemon."""
        raise UsageError(f"target {job.target.name!r}", "such targets cannot be run by name")

    def adapt(self, value: object, name: str) -> Service | None:
        """Return the service for what is in a program's variable; None if that is not of this kind."""
        return None

    def explain(self, what: str, error: Exception) -> TamedError | None:
        """Return a better error for what a program has raised while it was loaded; None if there is none."""
        return None

    def command_line(self, words: Sequence[str]) -> CommandLine:
        """Understand a command line of the framework's own runner."""
        raise UsageError("command line", "there is no runner of that kind")


def own_kinds() -> Iterator[Kind]:
    """Yield the kinds that come with Tamed, and are there: none of the frameworks is loaded for that."""
    for prefix in _OWN:
        if (kind := _own(prefix)) is not None:
            yield kind


def kind_of(prefix: str) -> Kind:
    """Return the kind of target with a prefix. Raises UsageError if there is none."""
    if prefix in _OWN and (kind := _own(prefix)) is not None:
        return kind
    value = _of_others().get(prefix)
    if value is None:
        raise UsageError(f"targets {prefix}:NAME", "no package that is installed has this kind")
    try:
        return _made(value)
    except (ImportError, AttributeError) as error:
        raise ApplicationFailed(f"the kind of target {prefix}: cannot be imported", reason(error)) from error


def parse(text: str) -> Target:
    """Return the target that a text names, by its spelling and by the prefixes that there are."""
    target = Target.parse(text)
    prefix, _, name = text.partition(":")
    if target.kind is TargetKind.MODULE and _is_prefix(prefix):
        return Target(TargetKind.FOREIGN, name, prefix)
    return target


def resolve(text: str, folders: Sequence[Path] = ()) -> Target:
    """Return the target that a text names; ``folders`` are looked through for plugins first.

    Only a name that nobody has among Tamed's plugins is looked for among those of other kinds: for Twisted
    that imports all of them. Raises as `Target.parse` does.
    """
    target = parse(text)
    if target.kind is not TargetKind.PLUGIN or text != target.name:  # a prefix says which is meant
        return target
    try:
        find(target.name, folders)
    except UsageError:
        if target.name not in names(folders):
            for prefix in _OWN:
                kind = _own(prefix)
                if kind is not None and kind.is_installed() and kind.has(target.name, folders):
                    return Target(TargetKind.FOREIGN, target.name, prefix)
    except TamedError:  # it is there, and cannot be run: told by whoever runs it
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
    from importlib.metadata import entry_points  # slow: only where no other way is left

    return {each.name: each.value for each in entry_points(group=_GROUP)}


@lru_cache
def _made(value: str) -> Kind:
    kind: Kind = import_variable(value)()
    return kind
