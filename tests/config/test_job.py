from pathlib import Path

import pytest

from tamed.config.job import Job, Reading, Target
from tamed.config.load import load as load_application
from tamed.errors import ApplicationFailed, ConfigurationError, TamedError, UsageError
from tamed.net.reply import ReplyServer
from tamed.service.application import Application
from tamed.service.service import Service

PLUGIN = '''
from dataclasses import dataclass
from pathlib import Path
from tamed import Application, Endpoint, Service, option, plugin

@dataclass
class Options:
    port: int = option(1, "The port.")
    poem: Path = option(Path("default"))
    listen: list[Endpoint] = option([])

class Told(Service):
    def __init__(self, options):
        super().__init__("told")
        self.options = options

@plugin
def ode(options: Options) -> Service:
    """An ode."""
    if options.port == 13:
        raise KeyError("unlucky")
    return Application("own", Told(options)) if options.port == 2 else Told(options)
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a plugin folder with one plugin, and a deployment file beside it."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "ode.py").write_text(PLUGIN)
    (tmp_path / "app.py").write_text(
        "from tamed import Application, Service\napplication = Application('verse', Service('a'))\n"
    )
    return tmp_path


def write(folder: Path, text: str) -> Target:
    """Write a deployment file and return it as a target."""
    file = folder / "verse.toml"
    file.write_text(text)
    return Target.parse(str(file))


def load(job: Job) -> Application:
    """Load a job's application, as a runner does."""
    return load_application(Reading.of(job))


def tree(service: Service) -> list[str]:
    """Return the paths of all services."""
    return [each.full_name for each in service.walk()]


def told(service: Service) -> object:
    """Return the options from which the plugin's service was made, with the endpoints as texts."""
    options = vars(service)["options"]
    return options.port, str(options.poem), [str(endpoint) for endpoint in options.listen]


def test_a_plugin_is_made_from_flags_and_environment(folder: Path) -> None:
    """A service is put into an application of its name, unless it is one."""
    environ = {"TAMED_ODE_PORT": "2", "TAMED_ODE_POEM": "e"}
    dirs = (folder / "plugins",)
    job = Job(Target.parse("ode"), services={"ode": {"port": "3"}}, plugin_dirs=dirs, environ=environ)
    application = load(job)
    assert (application.name, tree(application)) == ("ode", ["ode", "told"])
    assert told(application["told"]) == (3, "e", [])
    assert load(Job(Target.parse("ode"), plugin_dirs=dirs, environ=environ)).name == "own"


def test_a_deployment_is_made_of_its_services(folder: Path) -> None:
    """Each service has its own name, variables and flags, and paths relative to the file."""
    target = write(
        folder,
        '[services.a]\nplugin = "ode"\nport = 5\npoem = "p"\nlisten = ["unix:s", ":1"]\n'
        '[services.b-2]\nplugin = "ode"\n[services.c]\napplication = "app.py"\n',
    )
    job = Job(
        target,
        services={"b-2": {"port": "7", "poem": "flag"}},
        plugin_dirs=(folder / "plugins",),
        environ={"TAMED_A_PORT": "6"},
    )
    application = load(job)
    assert tree(application) == ["verse", "a", "b-2", "c", "c/a"]
    assert told(application["a"]) == (6, f"{folder}/p", [f"unix:{folder}/s", ":1"])
    assert told(application["b-2"]) == (7, "flag", [])


@pytest.mark.parametrize(
    ("table", "kind", "says"),
    [
        ('plugin = "odd"', ConfigurationError, ".plugin: unknown plugin 'odd'; did you mean 'ode'?"),
        ('plugin = "ode"\nprot = 1', ConfigurationError, ": unknown key 'prot'; did you mean 'port'?"),
        ('plugin = "ode"\nport = "x"', ConfigurationError, ".port: expected a whole number, got 'x'"),
        ('plugin = "ode"\nlisten = "x"', ConfigurationError, ".listen: 'x': no port: expected HOST"),
        (
            'application = "ode"',
            ConfigurationError,
            ".application: 'ode' is a plugin: expected FILE.py or PACKAGE.MODULE:VARIABLE",
        ),
        ('application = "x:"', ConfigurationError, ".application: target 'x:': expected PACKAGE"),
    ],
)
def test_a_mistake_in_a_deployment_is_named_with_its_place(
    folder: Path, table: str, kind: type[TamedError], says: str
) -> None:
    """A wrong value in the file is a configuration error; on the command line it is a usage error."""
    target = write(folder, f"[services.a]\n{table}")
    with pytest.raises(kind) as caught:
        load(Job(target, plugin_dirs=(folder / "plugins",), environ={}))
    assert str(caught.value).startswith(f"{target.name}: services.a{says}")


def test_a_plugin_that_raises_is_at_fault(folder: Path) -> None:
    """The exception from making the service is the cause."""
    ode = Target.parse("ode")
    job = Job(ode, services={"ode": {"port": "13"}}, plugin_dirs=(folder / "plugins",), environ={})
    with pytest.raises(
        ApplicationFailed, match=r"^plugin ode raised while making its service: Key"
    ) as caught:
        load(job)
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_flag_of_a_service_has_its_name_in_messages(folder: Path) -> None:
    """The message contains the flag as it was given on the command line."""
    target = write(folder, '[services.a]\nplugin = "ode"')
    job = Job(target, services={"a": {"port": "x"}}, plugin_dirs=(folder / "plugins",), environ={})
    with pytest.raises(UsageError, match=r"^--a\.port: expected a whole number, got 'x'$"):
        load(job)


def test_an_application_takes_no_options(folder: Path) -> None:
    """Options without a reader are refused."""
    job = Job(Target.parse(str(folder / "app.py")), services={"x": {"port": "1"}}, environ={})
    with pytest.raises(UsageError, match=r"takes no options; put Tamed's options before it$"):
        load(job)


def test_the_plugin_of_the_package_is_found_by_its_name() -> None:
    """``fastpoetry`` consists of a poem and a server."""
    job = Job(Target.parse("tamed:fastpoetry"), services={"fastpoetry": {"port": "7"}}, environ={})
    application = load(job)
    assert tree(application) == ["fastpoetry", "fastpoetry", "fastpoetry/poetry", "fastpoetry/server"]
    servers = [each.summary for each in application.walk() if isinstance(each, ReplyServer)]
    assert servers == ["localhost:7"]
