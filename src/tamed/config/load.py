"""Loading the target of a job: a plugin, an application file, a module's variable, a Twisted program."""

import importlib.util
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from tamed._os.text import noun
from tamed._os.trust import require_trusted
from tamed._os.variables import VariableName, missing_module
from tamed.config.deployment import Deployment, Entry
from tamed.config.job import Job, Reading, TargetKind
from tamed.config.kinds import kind_of, own_kinds, parse
from tamed.errors import (
    ApplicationFailed,
    ConfigurationError,
    Errors,
    MissingInput,
    TamedError,
    UsageError,
    from_os_error,
    reason,
)
from tamed.log.logger import exit_logged, own_logger
from tamed.plugins.build import Given
from tamed.plugins.plugin import Plugin
from tamed.service.application import Application
from tamed.service.service import Service

__all__ = ["load", "load_file", "load_variable"]

log = own_logger("tamed")

_VARIABLE = "application"


def load_file(path: Path) -> Application:
    """Run an application file and return its variable ``application``.

    It runs as ``python FILE`` would: the modules in its folder can be imported, and its bytecode is not
    written. It is registered as a module, so that logging and pickling find it: ``FILE.py`` as ``FILE``,
    unless another module has or may get that name; any other file under its full name, which no import
    statement can refer to.

    Raises MissingInput or PermissionRefused if the file cannot be read, ApplicationFailed, with the exception
    as its cause, if it raises or has no application, and UsageError for a saved application of Twisted.
    """
    if path.suffix in (".tap", ".tas"):
        why = "Tamed does not run pickled applications"
        raise UsageError(f"{path} is a saved application", why, "run the .tac file from which it was made")
    require_trusted(path, "application file")
    try:
        source = path.read_bytes()
    except OSError as error:
        raise from_os_error(
            f"cannot read the application file {path}", error, "use a readable file"
        ) from error
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    module = ModuleType(_module_name(path, source, folder))
    module.__file__ = str(path.absolute())  # absolute, as for a script: code derives its folder from it
    module.__package__ = ""
    sys.modules[module.__name__] = module
    try:
        with exit_logged(log, str(path), "while it was loaded"):
            exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102  # the operator named it
    except Exception as error:
        raise _failure(f"{path} raised while it was loaded", error) from error
    return _application(module, _VARIABLE, str(path), path.stem, f"name it {_VARIABLE}")


def load_variable(target: str) -> Application:
    """Import ``package.module:variable`` and return the application it names.

    The working directory is searched last, so that it cannot hide an installed package. Raises
    UsageError for a target that is not of this form, MissingInput if there is no such module, and
    ApplicationFailed, with the exception as its cause, if it cannot be imported or is not an application.
    """
    try:
        wanted = VariableName.parse(target)
    except ValueError as error:
        raise UsageError(f"target {target!r}", str(error)) from None
    name = wanted.module
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
        with exit_logged(log, name, "while it was imported"):
            module = importlib.import_module(name)
    except TamedError:
        raise
    except Exception as error:
        if missing := missing_module(error, name):
            remedy = "install it, or run Tamed from its folder"
            raise MissingInput(f"target {target!r}", f"there is no module {missing!r}", remedy) from None
        raise _failure(f"{name} raised while it was imported", error) from error
    return _application(module, wanted.variable, name, name.rpartition(".")[2], f"write {name}:VARIABLE")


def _application(module: ModuleType, variable: str, where: str, name: str, if_other: str) -> Application:
    """Return a module's variable; ``if_other`` is the remedy if another variable has the application."""
    try:
        value: object = VariableName(module.__name__, variable).value_in(module)
    except AttributeError:
        raise _no_application(module, variable, where, if_other) from None
    if isinstance(value, Application):
        return value
    if isinstance(value, Service):
        return Application(name, value)
    for kind in own_kinds():
        if (service := kind.adapt(value, name)) is not None:
            return Application(name, service)
    what = f"{variable!r} in {where} is {noun(type(value).__name__)}, not an Application"
    raise ApplicationFailed(what, remedy=f"write {variable} = Application({name!r}, ...)")


def _failure(what: str, error: Exception) -> TamedError:
    """Return the error for an exception that was raised while a program was loaded."""
    for kind in own_kinds():
        if (explained := kind.explain(what, error)) is not None:
            return explained
    return ApplicationFailed(what, reason(error))


def _no_application(module: ModuleType, variable: str, where: str, if_other: str) -> ApplicationFailed:
    other = next((name for name, value in vars(module).items() if isinstance(value, Application)), None)
    remedy = f"write {variable} = Application(NAME, ...)"
    if other is not None:
        remedy = f"did you mean {other!r}? {if_other.replace('VARIABLE', other)}"
    return ApplicationFailed(f"{where} has no variable {variable!r}", remedy=remedy)


def _module_name(path: Path, source: bytes, folder: str) -> str:
    """Return a name for a file's module that hides no other module, now or later.

    A file other than ``.py`` cannot be imported anyway, so it gets a name that no statement can import. A
    module in the folder of a ``.py`` file may import the file by its stem, and must get the loaded module.
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
    """Return whether a file imports its own name: that is another module, on a path that it adds."""
    own = re.escape(name)
    statement = rf"^\s*(?:from\s+{own}(?:\s|\.\w)|import\s+(?:[\w.]+(?:\s+as\s+\w+)?\s*,\s*)*{own}(?!\w))"
    return re.search(statement.encode(), source, re.MULTILINE) is not None


class _Others:
    """Finds other modules with the name of an application file, which Python's search would find first."""

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
        """Return whether another such module exists; it may be a package in the file's folder."""
        if not self._name.isidentifier():
            return False
        if self._name in sys.modules or self.find_spec(self._name, None) is not None:
            return True
        found = importlib.util.find_spec(self._name)
        return found is not None and (found.origin is None or not file.samefile(found.origin))


def load(reading: Reading) -> Application:
    """Import the code of a job's target, and make its application.

    Sets ``sys.argv`` to that of the job.
    """
    job, deployment = reading.fixed_job, reading.deployment
    if job.argv:
        sys.argv[:] = job.argv
    meant = [kind_of(job.target.prefix)] if job.target.kind is TargetKind.FOREIGN else []
    for kind in {*own_kinds(), *meant}:
        kind.prepare(job)
    name = job.target.name
    with exit_logged(log, name, "while it was loaded"):
        match job.target.kind:
            case TargetKind.DEPLOYMENT:
                assert deployment is not None
                return Application(deployment.name, *_of_entries(job, deployment))
            case TargetKind.FILE:
                return _without_options(job, load_file(job.path(name)))
            case TargetKind.MODULE:
                return _without_options(job, load_variable(name))
            case TargetKind.PLUGIN:
                service = _make(job.find(name), job.given(name, job.services.get(name, {})))
                return service if isinstance(service, Application) else Application(name, service)
            case TargetKind.FOREIGN:
                return Application(name, kind_of(job.target.prefix).make(job, reading.settings))


def _of_entries(job: Job, deployment: Deployment) -> list[Service]:
    """Make the services of a deployment, or raise all their errors."""
    services = []
    errors = Errors()
    for entry in deployment.services:
        with errors:
            services.append(_of_entry(job, entry, deployment))
    errors.raise_first()
    return services


def _of_entry(job: Job, entry: Entry, deployment: Deployment) -> Service:
    """Make one service of a deployment."""
    section = f"services.{entry.name}"
    if entry.application is not None:
        with _found_in(f"{deployment.file}: {section}.application"):
            service: Service = _program(entry.application, deployment.folder)
    else:
        assert entry.plugin is not None
        with _found_in(f"{deployment.file}: {section}.plugin"):
            plugin = job.find(entry.plugin)
        flags = job.services.get(entry.name, {})
        given = job.given(entry.name, flags, deployment, section, entry.table, flag_prefix=f"{entry.name}.")
        service = _make(plugin, given)
    service.name = entry.name
    if entry.only:
        service.only = entry.only
    return service


def _without_options(job: Job, application: Application) -> Application:
    if any(job.services.values()):
        raise UsageError(
            f"target {job.target.name!r} takes no options", remedy="put Tamed's options before it"
        )
    return application


def _make(plugin: Plugin[...], given: Given) -> Service:
    try:
        with exit_logged(log, f"plugin {plugin.name}", "while making its service"):
            return plugin.make(given)
    except TamedError:
        raise
    except Exception as error:
        raise ApplicationFailed(
            f"plugin {plugin.name} raised while making its service", reason(error)
        ) from error


def _program(text: str, folder: Path) -> Application:
    target = parse(text)
    match target.kind:
        case TargetKind.FILE:
            return load_file(folder / target.name)
        case TargetKind.MODULE:
            return load_variable(target.name)
        case _:
            raise UsageError(
                f"{text!r} is a {target.kind.value}", "expected FILE.py or PACKAGE.MODULE:VARIABLE"
            )


@contextmanager
def _found_in(place: str) -> Iterator[None]:
    """Turn a UsageError into a ConfigurationError with the place in the deployment file."""
    try:
        yield
    except UsageError as error:
        raise ConfigurationError(f"{place}: {error.what}", error.why, error.remedy) from error
