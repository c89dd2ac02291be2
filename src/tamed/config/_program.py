"""Loading an application from a Python program: a file of its own, or a variable in a module."""

import importlib.util
import re
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from tamed._trust import require_trusted
from tamed.errors import ApplicationFailed, MissingInput, TamedError, UsageError, from_os_error, reason
from tamed.service.application import Application
from tamed.service.service import Service

__all__ = ["load_file", "load_variable"]

_VARIABLE = "application"


def load_file(path: Path) -> Application:
    """Run an application file and return its variable ``application``.

    It runs as ``python FILE`` would: the modules beside it can be imported, and no bytecode of it is
    written. It is registered as a module, so that logging and pickling find it: ``FILE.py`` as ``FILE``,
    unless another module has that name or may get it, and any other file under its whole name, which no
    import statement means.

    Raises MissingInput or PermissionRefused if the file cannot be read, ApplicationFailed, with what was
    raised as its cause, if it cannot be run, or has no application, and UsageError for one of Twisted's saved
    applications.
    """
    if path.suffix in (".tap", ".tas"):
        why = "Tamed runs no code out of pickles and the like"
        raise UsageError(f"{path} is a saved application", why, "run the .tac file that it was made from")
    require_trusted(path, "application file")
    try:
        source = path.read_bytes()
    except OSError as error:
        raise from_os_error(
            f"cannot read the application file {path}", error, "name a readable file"
        ) from error
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    module = ModuleType(_module_name(path, source, folder))
    module.__file__ = str(path.absolute())  # as that of a script is: its folder is found by it
    module.__package__ = ""
    sys.modules[module.__name__] = module
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102  # the operator named it to be run
    except Exception as error:
        raise _failure(f"{path} raised while it was loaded", error) from error
    return _application(module, _VARIABLE, str(path), path.stem, f"name it {_VARIABLE}")


def load_variable(target: str) -> Application:
    """Import ``package.module:variable`` and return the application it names.

    The working directory is looked at last, so that nothing in it stands before an installed package.
    Raises UsageError for a target that is not of this form, MissingInput if there is no such module, and
    ApplicationFailed, with what was raised as its cause, if it cannot be imported or is no application.
    """
    name, _, variable = target.partition(":")
    if not all(part.isidentifier() for part in (*name.split("."), *variable.split("."))):
        raise UsageError(f"target {target!r}", "expected PACKAGE.MODULE:VARIABLE")
    try:
        here = str(Path.cwd())
    except OSError as error:
        raise from_os_error("the current folder", error, "change to another one") from error
    if here not in sys.path:
        sys.path.append(here)
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin:
            require_trusted(Path(spec.origin), "module")
        module = importlib.import_module(name)
    except TamedError:
        raise
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            remedy = "install it, or run from the folder it is in"
            raise MissingInput(f"target {target!r}", f"there is no module {error.name!r}", remedy) from None
        raise _failure(f"{name} raised while it was imported", error) from error
    return _application(module, variable, name, name.rpartition(".")[2], f"write {name}:VARIABLE")


def _application(module: ModuleType, variable: str, where: str, name: str, if_other: str) -> Application:
    """Return a module's variable; ``if_other`` is the remedy if the application is in another one."""
    value: object = module
    for part in variable.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            raise _no_application(module, variable, where, if_other) from None
    if isinstance(value, Application):
        return value
    if isinstance(value, Service):
        return Application(name, value)
    if (service := _of_twisted(value, name)) is not None:
        return Application(name, service)
    told = f"{variable!r} in {where} is {_shown(value)}, not an Application"
    raise ApplicationFailed(told, remedy=f"write {variable} = Application({name!r}, ...)")


def _of_twisted(value: object, name: str) -> Service | None:
    """Return the service for what is one to Twisted, if the program has loaded that."""
    if "twisted.application.service" not in sys.modules:
        return None
    from tamed.twisted import as_service

    return as_service(value, name)


def _failure(what: str, error: Exception) -> ApplicationFailed:
    """Return the error for what a program has raised while it was loaded."""
    if "twisted.internet.error" in sys.modules:
        from tamed.twisted import explain_reactor

        if (explained := explain_reactor(what, error)) is not None:
            return explained
    return ApplicationFailed(what, reason(error))


def _no_application(module: ModuleType, variable: str, where: str, if_other: str) -> ApplicationFailed:
    other = next((name for name, value in vars(module).items() if isinstance(value, Application)), None)
    remedy = f"write {variable} = Application(NAME, ...)"
    if other is not None:
        remedy = f"did you mean {other!r}? {if_other.replace('VARIABLE', other)}"
    return ApplicationFailed(f"{where} has no variable {variable!r}", remedy=remedy)


def _shown(value: object) -> str:
    kind = type(value).__name__
    return "None" if value is None else f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"


def _module_name(path: Path, source: bytes, folder: str) -> str:
    """Return a name for a file's module that stands before no other module, now or later.

    A file that is no ``.py`` cannot be imported, so nothing is lost with a name that no statement can import.
    A module beside a ``.py`` file may import that by its stem, and should get the module that was loaded.
    """
    name = path.name
    if path.suffix == ".py" and "." not in path.stem:
        others = _Others(path.stem, folder)
        if others.exist(path) or _imports(source, path.stem):
            sys.meta_path.insert(0, others)
        else:
            name = path.stem
    while name in sys.modules:
        name = f"_{name}"
    return name


def _imports(source: bytes, name: str) -> bool:
    """Tell whether a file imports its own name: it means another module, on a path that it adds."""
    own = re.escape(name)
    statement = rf"^\s*(?:from\s+{own}(?:\s|\.\w)|import\s+(?:[\w.]+(?:\s+as\s+\w+)?\s*,\s*)*{own}(?!\w))"
    return re.search(statement.encode(), source, re.MULTILINE) is not None


class _Others:
    """Finds, by the name of an application file, what else has that name: the file would be found first."""

    def __init__(self, name: str, folder: str) -> None:
        self._name = name
        self._folder = folder

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self._name or path is not None:
            return None
        elsewhere = [each for each in sys.path if str(Path(each).resolve()) != self._folder]
        return PathFinder.find_spec(name, elsewhere)

    def exist(self, file: Path) -> bool:
        """Tell whether there is one, be it a package beside the file."""
        if not self._name.isidentifier():
            return False
        if self._name in sys.modules or self.find_spec(self._name, None) is not None:
            return True
        found = importlib.util.find_spec(self._name)
        return found is not None and (found.origin is None or not file.samefile(found.origin))
