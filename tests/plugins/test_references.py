"""References in values: variables in a deployment file, and the sources of secrets."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as examples
from hypothesis import strategies as st

from tamed.config.deployment import Deployment
from tamed.config.job import Job, Target, TargetKind
from tamed.errors import ConfigurationError, TamedError, UsageError
from tamed.plugins.build import Given, build, expanded, referenced_secret
from tamed.plugins.option import option

ENVIRON = {"USER": "john", "EMPTY": "", "MONEY": "${USER}"}


@dataclass
class Login:
    """Options with secrets."""

    user: str = option("")
    password: str = option("", secret=True)
    keys: list[str] = option([], secret=True)


def login(**given: Any) -> Login:
    """Build the options from given values."""
    return build(Login, Given(service="s", file="verse.toml", section="services.s", **given))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${USER}", "john"),
        ("a ${USER}-${EMPTY}.", "a john-."),
        ("${MONEY}", "${USER}"),
        ("$$", "$"),
        ("$${USER}", "${USER}"),
        ("$$${USER}", "$john"),
        ("$USER costs 5$", "$USER costs 5$"),
        ("", ""),
    ],
)
def test_variables_are_replaced_once(text: str, value: str) -> None:
    """Only ``${NAME}`` is a reference; its value is not expanded again."""
    assert expanded(text, ENVIRON) == value


def test_variables_are_replaced_in_all_texts_of_a_value() -> None:
    """Numbers and keys are unchanged."""
    value = {"${USER}": ["${USER}", 1, {"a": "$$"}], "b": True}
    assert expanded(value, ENVIRON) == {"${USER}": ["john", 1, {"a": "$"}], "b": True}


@examples(st.text())
def test_any_text_can_be_written(text: str) -> None:
    """A doubled dollar sign is a dollar sign."""
    assert expanded(text.replace("$", "$$"), {}) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("${NONE}", "the environment variable NONE is not set; write $$ for a dollar sign"),
        ("${}", "${} is not the name of a variable; write $$ for a dollar sign"),
        ("${a b}", "${a b} is not the name of a variable; write $$ for a dollar sign"),
    ],
)
def test_a_variable_that_is_not_set_is_an_error(text: str, why: str) -> None:
    """The error has the key and the remedy."""
    with pytest.raises(ConfigurationError) as caught:
        login(table={"user": text}, environ=ENVIRON)
    assert str(caught.value) == f"verse.toml: services.s.user: {why}"


def test_only_the_deployment_file_is_expanded() -> None:
    """References are expanded in files only, not on the command line or in the environment."""
    assert login(table={"user": "${USER}"}, environ=ENVIRON).user == "john"
    assert login(flags={"user": "${USER}"}, environ=ENVIRON).user == "${USER}"
    assert login(environ={**ENVIRON, "TAMED_S_USER": "${USER}"}).user == "${USER}"


def test_a_secret_is_read_from_its_place(tmp_path: Path) -> None:
    """The secret is read from a file, a credential or a variable, in each source."""
    (tmp_path / "db").write_text("busy old fool\n")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path), "PASSWORD": "unruly"}
    for place, secret in (
        (f"file:{tmp_path}/db", "busy old fool"),
        ("credential:db", "busy old fool"),
        ("env:PASSWORD", "unruly"),
    ):
        assert login(table={"password": place}, environ=environ).password == secret
        assert login(flags={"password": place}, environ=environ).password == secret
        assert login(environ={**environ, "TAMED_S_PASSWORD": place}).password == secret
    assert login(table={"password": "file:db"}, file_folder=tmp_path).password == "busy old fool"
    assert login(table={"keys": ["env:PASSWORD", "x"]}, environ=environ).keys == ["unruly", "x"]
    assert login(table={"password": "plain"}).password == "plain"
    assert login(table={"user": "file:db"}).user == "file:db"  # an ordinary option has no references


def test_a_secret_is_no_word_of_a_command_line() -> None:
    """A secret on the command line is refused, because every user can see it; the error hides it."""
    for flags in ({"password": "hunter2"}, {"keys": ["env:PATH", "hunter2"]}):
        with pytest.raises(UsageError, match="use prompt:, file:PATH, credential:NAME or env:NAME") as caught:
            login(flags=flags)
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("file:none", "cannot read the secret {0}/none: "),
        ("file:.", "cannot read the secret {0}: "),
        ("file:long", "the secret {0}/long has more than 65536 bytes"),
        ("file:bytes", "the secret {0}/bytes is not UTF-8"),
        ("credential:none", "cannot read the secret {0}/none: "),
        ("credential:../db", "expected the name of a credential, without a slash"),
        ("credential:", "expected the name of a credential, without a slash"),
        ("env:NONE", "the environment variable NONE is not set"),
    ],
)
def test_a_secret_that_cannot_be_read_is_an_error(tmp_path: Path, place: str, why: str) -> None:
    """The error names the reference, and the reason."""
    (tmp_path / "long").write_text("x" * 65537)
    (tmp_path / "bytes").write_bytes(b"\xff")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    with pytest.raises(TamedError) as caught:
        login(table={"password": place}, environ=environ, file_folder=tmp_path)
    assert str(caught.value).startswith(f"verse.toml: services.s.password: {why.format(tmp_path)}")


def test_without_systemd_there_are_no_credentials() -> None:
    """The error names the variable of systemd's credentials."""
    with pytest.raises(ValueError, match="CREDENTIALS_DIRECTORY is not set"):
        referenced_secret("credential:db", {})


def test_an_answer_is_the_value_of_the_option_that_was_asked_for() -> None:
    """An answer is used in each source, only for its option, and is not treated as a reference."""
    answers = {"TAMED_S_PASSWORD": "env:USER"}
    for given in (
        {"flags": {"password": "prompt:"}},
        {"environ": {"TAMED_S_PASSWORD": "prompt:"}},
        {"table": {"password": "prompt:"}},
    ):
        assert login(**given, answers=answers).password == "env:USER"
        with pytest.raises(TamedError, match="there was no prompt for it"):
            login(**given)
    with pytest.raises(ConfigurationError, match="there was no prompt for it"):
        login(table={"keys": ["prompt:"]}, answers=answers)
    with pytest.raises(UsageError, match="every user of this machine can read"):
        login(flags={"password": "prompt:hunter2"}, answers=answers)


def test_the_source_that_counts_is_asked_for() -> None:
    """A flag overrides a variable, and a variable overrides the file."""
    text = '[services.a]\nplugin = "p"\npin-code = "prompt:"\nkey = "prompt:"\n[services.b]\nplugin = "p"\n'
    deployment = Deployment.parse(text, Path("verse.toml"))
    job = Job(
        Target(TargetKind.DEPLOYMENT, "verse.toml"),
        environ={"TAMED_A_KEY": "env:KEY", "TAMED_B_X": "prompt:"},
    )
    assert job.prompts(deployment) == {"TAMED_A_PIN_CODE": "a.pin-code", "TAMED_B_X": "TAMED_B_X"}
    job = job._replace(services={"a": {"pin_code": "file:pin", "key": "prompt:"}})
    assert job.prompts(deployment) == {"TAMED_A_KEY": "a.key", "TAMED_B_X": "TAMED_B_X"}
