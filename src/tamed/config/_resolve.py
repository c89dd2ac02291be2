"""Which plugin a bare name stands for: ours and those made for Tamed go first, and then Twisted's."""

from collections.abc import Sequence
from pathlib import Path

from tamed.config._target import Target, TargetKind
from tamed.errors import TamedError, UsageError
from tamed.plugins.discovery import find, names
from tamed.twisted import is_installed

__all__ = ["resolve"]


def resolve(text: str, folders: Sequence[Path] = ()) -> Target:
    """Return the target that a text names; ``folders`` are looked through for plugins first.

    Only a name that nobody has among Tamed's plugins is looked for among Twisted's: that imports all of
    those. Raises as `Target.parse` does.
    """
    target = Target.parse(text)
    if target.kind is not TargetKind.PLUGIN or text != target.name:  # a prefix says which is meant
        return target
    try:
        find(target.name, folders)
    except UsageError:
        if target.name not in names(folders) and is_installed():
            from tamed.twisted import has_plugin

            if has_plugin(target.name, folders):
                return Target(TargetKind.TWISTED, target.name)
    except TamedError:  # it is there, and cannot be run: told by whoever runs it
        pass
    return target
