from pathlib import Path

import pytest

from tamed.cluster.engine import Attempt, Engine, EngineError, EngineUrl, open_engine
from tamed.errors import ConfigurationError


class Quiet(Engine):
    def __init__(self, url: EngineUrl) -> None:
        url.check("colour")
        self.url = url

    async def acquire(self, role: str, holder: str, ttl: float) -> Attempt:
        return Attempt(1, holder)

    async def renew(self, role: str) -> bool:
        return True

    async def release(self, role: str) -> None:
        pass

    async def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install another distribution with engines: one that works, and some that do not."""
    folder = tmp_path / "others-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Name: others\nVersion: 1.0\n", "utf-8")
    values = {
        "quiet": f"{__name__}:Quiet",
        "absent": "no_such_module:Engine",
        "broken": f"{__name__}:no_such_name",
        "number": "builtins:repr",
        "raising": "builtins:int",
    }
    lines = ["[tamed.engines]", *(f"{name} = {value}" for name, value in values.items())]
    (folder / "entry_points.txt").write_text("\n".join(lines), "utf-8")
    monkeypatch.syspath_prepend(tmp_path)


def test_url_has_its_parts() -> None:
    """A URL is parsed into user, hosts with ports, path and options; what is encoded is decoded."""
    url = EngineUrl.parse("etcd://o%40ps@a,b-1.example:2379,[::1]:7/fleet/one/?ca=/etc/ca.pem&x=%20")
    hosts = (("a", None), ("b-1.example", 2379), ("::1", 7))
    options = {"ca": "/etc/ca.pem", "x": " "}
    assert url == EngineUrl(url.text, "etcd", "o@ps", hosts, "fleet/one", options)


def test_url_needs_no_host() -> None:
    """A URL without slashes has a path alone."""
    assert EngineUrl.parse("kubernetes:fleet")[1:] == ("kubernetes", "", (), "fleet", {})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("etcd", "expected SCHEME://HOST[:PORT],…"),
        ("ETCD://a", "expected SCHEME://HOST[:PORT],…"),
        ("quiet://a,", "expected HOST or HOST:PORT, got ''"),
        ("quiet://a:0", "expected HOST or HOST:PORT, got 'a:0'"),
        ("quiet://a:70000", "expected HOST or HOST:PORT, got 'a:70000'"),
        (
            "quiet://u:secret@a",
            "others can read a password in a URL; use ?password-file=FILE",
        ),
        ("quiet://a?colour=1&colour=2", "an option is set twice"),
        ("quiet://a?color=1", "unknown option 'color'; did you mean 'colour'?"),
        ("quiet:a", "expected quiet://HOST[:PORT],…"),
        ("quite://a", "there is no engine 'quite'; did you mean 'quiet'?"),
        ("absent://a", "there is no module 'no_such_module'"),
        ("broken://a", f"AttributeError: module '{__name__}' has no attribute 'no_such_name'"),
        ("number://a", "its engine is no Engine but str"),
    ],
)
def test_wrong_url_is_one_line(text: str, why: str) -> None:
    """A URL that is wrong, and an engine that cannot be loaded, are reported with the reason."""
    with pytest.raises(ConfigurationError) as raised:
        open_engine(text)
    shown = text.replace("u:secret@", "***@")
    assert str(raised.value) == f"--cluster {shown}: {why}"


def test_engine_that_cannot_be_made_is_one_line() -> None:
    """An exception of an engine's constructor is reported as the operator's fault."""
    with pytest.raises(ConfigurationError, match=r"^--cluster raising://a: TypeError: "):
        open_engine("raising://a")


def test_installed_engine_is_found() -> None:
    """The engine of another distribution is made from the URL."""
    engine = open_engine("quiet://a?colour=red")
    assert isinstance(engine, Quiet)
    assert engine.url.options == {"colour": "red"}


def test_password_is_in_a_file(tmp_path: Path) -> None:
    """The password is read from the file at each call; a file that is missing is the engine's error."""
    file = tmp_path / "password"
    url = EngineUrl.parse(f"quiet://u@a?password-file={file}")
    with pytest.raises(EngineError, match=r"^password file .*: .*No such file or directory$"):
        url.password()
    for each in ("tiger", "lion"):
        file.write_text(f"{each}\n", "utf-8")
        assert url.password() == each
    assert EngineUrl.parse("quiet://a").password() == ""
