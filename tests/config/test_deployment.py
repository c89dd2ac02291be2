from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tamed.config.deployment import Deployment, Entry
from tamed.errors import ConfigurationError, ExitStatus, TamedError

FILE = Path("verse.toml")
VERSE = """\
name = "poems"

[daemon]
drain-timeout = "10s"

[log]
level = "debug"

[services.science]
plugin = "fastpoetry"
port = 10001

[services.art]
application = "art.py"
"""
KEYS = st.sampled_from(["name", "daemon", "log", "services", "services.a", "services.a.plugin", "x", '"a b"'])
VALUES = st.sampled_from(['"a"', "1", "[]", "{}", '{plugin = "a"}', "true", "1979-05-27", "nan"])


def test_a_deployment_says_what_it_says() -> None:
    """The parts of a file are kept as written, and the services in their order."""
    deployment = Deployment.parse(VERSE, FILE)
    assert deployment == Deployment(
        FILE,
        "poems",
        {"drain-timeout": "10s"},
        {"level": "debug"},
        (
            Entry("science", "fastpoetry", None, {"port": 10001}),
            Entry("art", None, "art.py", {}),
        ),
        FILE.resolve().parent,
        VERSE,
    )


def test_a_deployment_is_named_for_its_file() -> None:
    """Without a name, the deployment has the name of the file."""
    assert Deployment.parse('[services.a]\nplugin = "p"', Path("/etc/verse.toml")).name == "verse"


def test_a_file_is_read_from_where_it_is(tmp_path: Path) -> None:
    """A byte order mark is ignored, and relative paths start in the file's folder."""
    file = tmp_path / "verse.toml"
    file.write_text(VERSE, "utf-8-sig")
    deployment = Deployment.read(file)
    assert deployment.name == "poems"
    assert deployment.folder == tmp_path


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A missing file, a folder and a binary file each give their own error."""
    for file, status, why in (
        (tmp_path / "none.toml", ExitStatus.NO_INPUT, "No such file or directory"),
        (tmp_path, ExitStatus.NO_INPUT, "Is a directory"),
    ):
        with pytest.raises(TamedError) as caught:
            Deployment.read(file)
        assert str(caught.value) == f"cannot read the deployment file {file}: {why}; use a readable file"
        assert caught.value.status == status
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b'name = "\xe9"')
    with pytest.raises(ConfigurationError, match=r"latin\.toml: byte 8 is not UTF-8; save it as UTF-8$"):
        Deployment.read(latin)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name = ", "verse.toml:1:8: not TOML: invalid value"),
        ("\n\n[services.a\n", "verse.toml:3:12: not TOML: expected ']' at the end of a table declaration"),
        ("a = 1\na = 2\n", "verse.toml:2:6: not TOML: cannot overwrite a value"),
        ('name = "verse', "verse.toml:1:14: not TOML: unterminated string"),
        ("a = [1,\n", "verse.toml:1:8: not TOML: invalid value"),
        ("", "verse.toml: it names no services; add one: [services.NAME] with plugin = "),
        ("[service.a]", "verse.toml: unknown key 'service'; did you mean 'services'?"),
        ("[x]", "verse.toml: unknown key 'x'; known keys: name, daemon, log, services"),
        ("name = 1", "verse.toml: name: expected a text, got 1"),
        ('name = ""', "verse.toml: name: expected a text, got ''"),
        ("log = 1", "verse.toml: log: expected a table; write [log]"),
        ("services = []", "verse.toml: services: expected a table; write [services]"),
        ("[services]\na = 1", "verse.toml: services.a: expected a table; write [services.a]"),
        (
            "[services.a]",
            'verse.toml: services.a: it names no plugin; write plugin = "NAME", or application = "FILE.py"',
        ),
        (
            '[services.a]\nplugin = "p"\napplication = "f.py"',
            "verse.toml: services.a: it has both plugin and application; write plugin = ",
        ),
        (
            '[services.a]\nplugin = "p"\nonly = ["host"]',
            "verse.toml: services.a.only: expected 'host' or 'cluster', got ['host']; or leave it out",
        ),
        ("[services.a]\nplugin = 1", "verse.toml: services.a.plugin: expected a text, got 1"),
        (
            '[services.a]\napplication = "f.py"\nport = 1',
            "verse.toml: services.a: unknown key 'port'; an application takes no options",
        ),
        (
            '[services."a/b"]\nplugin = "p"',
            "verse.toml: services.a/b: 'a/b' is not a valid name; use letters, digits, - and _",
        ),
        pytest.param(f"a = {'9' * 5000}", "verse.toml: cannot parse it as TOML: ", id="long"),
        pytest.param("a = " + "[" * 100_000, "verse.toml: cannot parse it as TOML: ", id="deep"),
    ],
)
def test_a_wrong_file_says_where_and_what(text: str, says: str) -> None:
    """The message has the line and column, or the key, and the status for configuration."""
    with pytest.raises(ConfigurationError) as caught:
        Deployment.parse(text, FILE)
    assert str(caught.value).startswith(says)
    assert len(str(caught.value)) < 200
    assert caught.value.status == 78


LINES = st.lists(st.tuples(KEYS, VALUES)).map(
    lambda rows: "\n".join(f"{key} = {value}" for key, value in rows)
)


@given(st.text() | LINES)
@example("services.a.plugin = 'a'")
@example("[services.a]\nplugin = '\\u0000'")
@example("\ufeff")
@example("a = 1979-02-30")
@example("a = 99:99:99")
def test_any_text_is_a_deployment_or_an_error_on_one_line(text: str) -> None:
    """Any file content is parsed or refused with one sentence that names the file."""
    said = ""
    try:
        assert Deployment.parse(text, FILE).services
    except TamedError as error:
        said = str(error)
    assert not said or said.startswith("verse.toml")
    assert "\n" not in said
