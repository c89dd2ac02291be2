import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tamed.config.job import Job, Reading, Target
from tamed.config.load import load
from tamed.errors import ApplicationFailed, ExitStatus, MissingInput, TamedError, UsageError
from tamed.service.application import Application
from tests.imports import forgetting_imports
from tests.patience import PATIENCE

APPLICATION = "from tamed import Application, Service\napplication = Application('verse', Service('a'))\n"


@pytest.fixture(autouse=True)
def _imports(tmp_path: Path) -> Iterator[None]:
    """Forget the modules that a test imported."""
    with forgetting_imports(tmp_path):
        yield


def load_target(target: str | Path) -> Application:
    """Load a target as the command does."""
    return load(Reading.of(Job(Target.parse(str(target)), environ={})))


def failure(target: str | Path) -> TamedError:
    """Return the error with which loading a target fails."""
    with pytest.raises(TamedError) as caught:
        load_target(target)
    return caught.value


def test_a_file_is_run_as_a_program_is(tmp_path: Path) -> None:
    """It can import modules beside it, has ``__file__``, and its module has the file's name."""
    (tmp_path / "beside_poem.py").write_text("TEXT = 'verse'")
    file = tmp_path / "poem_server.py"
    file.write_text(
        "import beside_poem\nfrom tamed import Application, Service\n"
        "class Poem(Service): pass\n"
        "application = Application(beside_poem.TEXT, Poem(__file__.replace('/', '-')), Poem(__name__))\n"
    )
    application = load_target(file)
    assert [service.name for service in application.walk()] == [
        "verse",
        str(file).replace("/", "-"),
        "poem_server",
    ]
    assert sys.modules["poem_server"].Poem is type(application["poem_server"])
    assert not list(tmp_path.rglob("poem_server*.pyc"))


def test_a_file_knows_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``__file__`` is absolute, as in a script, so relative files are found from any folder."""
    monkeypatch.chdir(tmp_path)
    Path("here.py").write_text(
        "from pathlib import Path\nfrom tamed import Service\n"
        "application = Service(Path(__file__).parent.parent.name)\n"
    )
    (service,) = load_target("here.py")
    assert service.name == tmp_path.parent.name


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("json.py", "import json\njson.dumps"),
        ("xmlrpc.py", "from xmlrpc.client import dumps"),
        ("xmlrpc.tac", "from xmlrpc.client import dumps"),
        ("besideverse.py", "import besideverse.poem"),
        ("besideverse.tac", "import besideverse.poem"),
        ("laterverse.py", "import sys\nsys.path.insert(0, LIB)\nfrom laterverse import poem"),
        ("laterverse.py", "import sys\nsys.path.insert(0, LIB)\nimport json, laterverse.poem as p"),
        ("laterverse.tac", "import sys\nsys.path.insert(0, LIB)\nimport helper_of_verse"),
        ("_lzma.py", "import lzma\nlzma.compress(b'')"),
        ("a.besideverse.py", "import besideverse.poem"),
    ],
)
def test_a_file_named_like_a_package_stands_before_none(tmp_path: Path, file: str, text: str) -> None:
    """The module's name hides no module of Python, of the folder, or of an added path."""
    for package in (tmp_path / "besideverse", tmp_path / "lib" / "laterverse"):
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "poem.py").touch()
    (tmp_path / "helper_of_verse.py").write_text("import laterverse.poem\n")
    text = text.replace("LIB", repr(str(tmp_path / "lib")))
    (tmp_path / file).write_text(
        f"{text}\n{APPLICATION}import sys\nassert sys.modules[__name__].application\n"
    )
    command = [sys.executable, "-P", "-m", "tamed", "check", file]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done


def test_a_module_beside_a_file_imports_the_one_that_was_loaded(tmp_path: Path) -> None:
    """Importing the file gives the same module, not a second one."""
    (tmp_path / "poem_app.py").write_text(f"{APPLICATION}import poem_helper\n")
    (tmp_path / "poem_helper.py").write_text("from poem_app import application\n")
    application = load_target(tmp_path / "poem_app.py")
    assert sys.modules["poem_helper"].application is application


def test_a_service_alone_is_an_application(tmp_path: Path) -> None:
    """A service is put into an application with the file's name."""
    file = tmp_path / "alone.py"
    file.write_text("from tamed import Service\napplication = Service('a')")
    assert [service.name for service in load_target(file).walk()] == ["alone", "a"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "FILE has no variable 'application'; write application = Application(NAME, ...)"),
        (
            APPLICATION.replace("application =", "app ="),
            "FILE has no variable 'application'; did you mean 'app'? name it application",
        ),
        (
            "application = None",
            "'application' in FILE is None, not an Application; write application = Application('poem', ...)",
        ),
        (
            "def application(): pass",
            "'application' in FILE is a function, not an Application; write application = ",
        ),
        ("application = 1", "'application' in FILE is an int, not an Application; write application = "),
        (
            "import nowhere_to_be_found",
            "FILE raised while it was loaded: ModuleNotFoundError: No module named",
        ),
        ("1 / 0", "FILE raised while it was loaded: ZeroDivisionError: division by zero"),
        ("def", "FILE raised while it was loaded: SyntaxError: invalid syntax (poem.py, line 1)"),
        ("\0", "FILE raised while it was loaded: "),
        ("open('/none')", "FILE raised while it was loaded: /none: No such file or directory"),
    ],
)
def test_a_file_that_is_no_application_says_why(tmp_path: Path, text: str, says: str) -> None:
    """The message names the file and the fix; the application is at fault."""
    file = tmp_path / "poem.py"
    file.write_text(text)
    error = failure(file)
    assert str(error).replace(str(file), "FILE").replace(f"({file}", "(poem.py").startswith(says)
    assert isinstance(error, ApplicationFailed)


def test_a_file_that_cannot_be_read_is_missing_input(tmp_path: Path) -> None:
    """A missing file is reported when it is loaded, not when the target is parsed."""
    for name, why in (("none.py", "No such file or directory"), ("", "Is a directory")):
        error = failure(f"{tmp_path}/{name}")
        assert why in str(error)
        assert str(error).startswith("cannot read the application file")
        assert error.status == ExitStatus.NO_INPUT


def test_what_ends_the_interpreter_is_let_through(tmp_path: Path) -> None:
    """An application that calls ``sys.exit`` while it is loaded chooses the status."""
    file = tmp_path / "leaver.py"
    file.write_text("raise SystemExit(3)")
    with pytest.raises(SystemExit, match="3"):
        load_target(file)


def test_a_module_that_exits_while_it_is_imported_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The text of ``sys.exit`` is reported, because a daemon has no terminal."""
    (tmp_path / "leaving_verse.py").write_text("raise SystemExit('no paper')")
    monkeypatch.chdir(tmp_path)
    with caplog.at_level("INFO"), pytest.raises(SystemExit, match="no paper"):
        load_target("leaving_verse:application")
    assert "leaving_verse, while it was imported, asked to exit with status 1: no paper" in caplog.messages


def test_a_variable_is_found_in_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable may be an attribute; the working directory is searched last."""
    package = tmp_path / "versepackage"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "server.py").write_text(APPLICATION + "class Box:\n    inner = application\n")
    (tmp_path / "json.py").write_text("raise RuntimeError")
    monkeypatch.chdir(tmp_path)
    assert load_target("versepackage.server:application").name == "verse"
    assert load_target("versepackage.server:Box.inner").name == "verse"
    assert "no variable 'x'" in str(failure("json:x"))


@pytest.mark.parametrize(
    ("target", "kind", "says"),
    [
        (
            "no_such_package.server:app",
            MissingInput,
            "there is no module 'no_such_package'; install it, or run",
        ),
        ("json.nothing:app", MissingInput, "there is no module 'json.nothing'"),
        ("json:", UsageError, "target 'json:': expected PACKAGE.MODULE:VARIABLE"),
        (":app", UsageError, "target ':app': expected PACKAGE.MODULE:VARIABLE"),
        ("a b:c", UsageError, "target 'a b:c': expected PACKAGE.MODULE:VARIABLE"),
        (
            "json:dumps",
            ApplicationFailed,
            "'dumps' in json is a function, not an Application; write dumps = ",
        ),
        ("json:application", ApplicationFailed, "json has no variable 'application'; write application = "),
        ("json:dumps.x", ApplicationFailed, "json has no variable 'dumps.x'"),
    ],
)
def test_a_variable_that_is_no_application_says_why(target: str, kind: type[TamedError], says: str) -> None:
    """A missing module is missing input; a missing application is the application's fault."""
    error = failure(target)
    assert says in str(error)
    assert type(error) is kind


def test_a_module_that_raises_is_at_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exception is the cause; a library that the module lacks is its own fault."""
    (tmp_path / "raising_verse.py").write_text("import nowhere_to_be_found")
    (tmp_path / "other_verse.py").write_text(APPLICATION.replace("application =", "app ="))
    monkeypatch.chdir(tmp_path)
    error = failure("raising_verse:application")
    assert isinstance(error, ApplicationFailed)
    assert str(error).startswith("raising_verse raised while it was imported: ModuleNotFoundError")
    assert isinstance(error.__cause__, ModuleNotFoundError)
    error = failure("other_verse:application")
    assert str(error).endswith("has no variable 'application'; did you mean 'app'? write other_verse:app")
