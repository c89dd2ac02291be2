import logging
from pathlib import Path
from typing import Any

import pytest

from tamed.config.deployment import Deployment
from tamed.config.job import Job, Target, read_settings
from tamed.config.settings import Daemon, Level, Settings
from tamed.errors import ConfigurationError, UsageError
from tamed.plugins.describe import describe
from tamed.plugins.values import Duration

PLUGIN = Target.parse("fastpoetry")
LEVELS = "debug, info, warning, error, critical, or LOGGER=LEVEL"


def settings(job: Job, text: str = "") -> Settings:
    """Return the settings of a job, with these lines in its deployment file."""
    deployment = Deployment.parse(f'{text}\n[services.a]\nplugin = "p"', Path("verse.toml"))
    return read_settings(job, deployment if text else None)


def test_the_command_line_comes_before_the_environment_before_the_file_before_the_default() -> None:
    """Each setting comes from the first source that has it."""
    text = '[daemon]\ndrain-timeout = "3s"\n[log]\nformat = "json"\nlevel = ["error"]'
    environ = {"TAMED_DRAIN_TIMEOUT": "2s", "TAMED_LOG_FORMAT": "plain"}
    flags: dict[str, Any] = {"drain_timeout": "1s"}
    assert settings(Job(PLUGIN, environ={})).daemon == Daemon()
    assert settings(Job(PLUGIN, environ={}), text).daemon.drain_timeout == Duration(3)
    assert settings(Job(PLUGIN, environ=environ), text).daemon.drain_timeout == Duration(2)
    assert settings(Job(PLUGIN, daemon=flags, environ=environ), text).daemon.drain_timeout == Duration(1)
    log = settings(Job(PLUGIN, log={"level": ["debug"]}, environ=environ), text).log
    assert (log.format, log.level) == ("plain", [Level("", logging.DEBUG)])
    assert settings(Job(PLUGIN, environ=environ), text).log.level == [Level("", logging.ERROR)]


def test_a_job_takes_the_environment_of_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing arguments come from the current environment."""
    monkeypatch.setenv("TAMED_LOOP", "asyncio")
    assert settings(Job(PLUGIN)).daemon.loop == "asyncio"


@pytest.mark.parametrize(
    ("job", "text", "kind", "says"),
    [
        (
            Job(PLUGIN, log={"format": "xml"}, environ={}),
            "",
            UsageError,
            "--log-format: expected auto, human, plain or json, got 'xml'",
        ),
        (
            Job(PLUGIN, environ={"TAMED_LOG_FORMAT": "xml"}),
            "",
            ConfigurationError,
            "TAMED_LOG_FORMAT: expected auto, human, plain or json, got 'xml'",
        ),
        (
            Job(PLUGIN, environ={}),
            '[log]\nformat = "xml"',
            ConfigurationError,
            "verse.toml: log.format: expected auto, human, plain or json, got 'xml'",
        ),
        (
            Job(PLUGIN, environ={}),
            "[daemon]\ndrain-timeuot = 1",
            ConfigurationError,
            "verse.toml: daemon: unknown key 'drain-timeuot'; did you mean 'drain-timeout'?",
        ),
        (
            Job(PLUGIN, environ={}),
            '[log]\nlevel = "loud"',
            ConfigurationError,
            f"verse.toml: log.level: expected {LEVELS}, got 'loud'",
        ),
    ],
)
def test_a_wrong_setting_is_named_as_it_was_given(
    job: Job, text: str, kind: type[Exception], says: str
) -> None:
    """The flag, the variable or the key precedes the expected value."""
    with pytest.raises(kind) as caught:
        settings(job, text)
    assert str(caught.value) == says


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("info", Level("", logging.INFO)),
        (" DEBUG", Level("", logging.DEBUG)),
        ("tamed.net=debug", Level("tamed.net", logging.DEBUG)),
        ("a.b = warning", Level("a.b", logging.WARNING)),
        ("=error", Level("", logging.ERROR)),
    ],
)
def test_a_level_is_for_all_loggers_or_for_one(text: str, level: Level) -> None:
    """The part before ``=`` is a logger, and ``str`` gives a text that can be parsed again."""
    assert Level.parse(text) == level
    assert Level.parse(str(level)) == level


@pytest.mark.parametrize("text", ["", "loud", "tamed.net=", "10", "info=tamed"])
def test_a_wrong_level_says_what_was_expected(text: str) -> None:
    """Only names of levels are accepted."""
    with pytest.raises(ValueError, match=f"^expected {LEVELS}, got"):
        Level.parse(text)


def test_the_settings_are_described_like_any_options() -> None:
    """Settings are options like those of plugins."""
    assert {"drain-timeout", "loop"} <= {option.key for option in describe(Daemon)}
