from pathlib import Path

from tests.cli.conftest import Tamed

PLUGIN = '''
from dataclasses import dataclass
from typing import Literal
from tamed import Service, option, plugin

@dataclass
class Options:
    port: int = option(1, "The port.", short="p")
    loud: bool = option(False, "Shout.")
    mood: Literal["sad", "gay"] = option("sad", "The mood.")
    header: dict[str, str] = option({}, "A header.")
    key: str = option("hidden", "The key.", secret=True)
    must: str = option(help="It must be given.")

class Ode(Service):
    @property
    def summary(self):
        return repr(self.options)

@plugin
def ode(options: Options) -> Service:
    """An ode."""
    service = Ode("ode")
    service.options = options
    return service
'''


def test_the_options_of_a_plugin_are_in_its_help(tamed: Tamed, tmp_path: Path) -> None:
    """``--help`` after the target shows its options, with defaults and variables, but no secrets."""
    (tmp_path / "ode.py").write_text(PLUGIN)
    status, out, err = tamed("run", "--plugin-dir", tmp_path, "ode", "--help")
    assert (status, err) == (0, "")
    words = " ".join(out.split())
    assert out.startswith("Usage: tamed run ode [OPTIONS]\n\n  An ode.\n")
    assert "-p, --port NUMBER The port. [default: 1; env: TAMED_ODE_PORT]" in words
    assert "--loud / --no-loud Shout. [default: false; env: TAMED_ODE_LOUD]" in words
    assert "--mood sad|gay The mood. [default: sad; env: TAMED_ODE_MOOD]" in words
    assert "--header KEY=TEXT A header. [repeatable; env: TAMED_ODE_HEADER]" in words
    assert "--must TEXT It must be given. [required; env: TAMED_ODE_MUST]" in words
    assert "hidden" not in out


def test_flags_become_options(tamed: Tamed, tmp_path: Path) -> None:
    """Options of every kind are read: values, switches, and repeated ones."""
    (tmp_path / "ode.py").write_text(PLUGIN)
    flags = ["-p", "7", "--no-loud", "--mood", "gay", "--header", "a=b", "--header", "c=d,e", "--must", ""]
    out = tamed("check", "--plugin-dir", tmp_path, "ode", *flags).out
    assert "port=7, loud=False, mood='gay', header={'a': 'b', 'c': 'd,e'}, must=''" in out
    assert "loud=True" in tamed("check", "--plugin-dir", tmp_path, "ode", "--loud", "--must", "x").out


def test_a_missing_option_is_reported_with_every_way_to_give_it(tamed: Tamed, tmp_path: Path) -> None:
    """The flag, the variable and the key are shown."""
    (tmp_path / "ode.py").write_text(PLUGIN)
    done = tamed("check", "--plugin-dir", tmp_path, "ode")
    assert done.status == 64
    assert done.err.startswith(
        "tamed: --must: 'must' is required; give --must TEXT, set TAMED_ODE_MUST or write"
    )


def test_the_help_of_a_deployment_has_a_section_for_each_service(tamed: Tamed, tmp_path: Path) -> None:
    """Values from the file are shown instead of the defaults."""
    (tmp_path / "ode.py").write_text(PLUGIN)
    file = tmp_path / "verse.toml"
    file.write_text(
        '[services.a-b]\nplugin = "ode"\nport = 5\nmust = "m"\nloud = true\n[services.a_b]\nplugin = "ode"\n'
    )
    status, out, err = tamed("run", "--plugin-dir", tmp_path, file, "--help")
    assert (status, err) == (0, "")
    words = " ".join(out.split())
    assert "a-b, made by ode: --a-b.port NUMBER The port. [file: 5; env: TAMED_A_B_PORT]" in words
    assert "--a-b.loud / --a-b.no-loud Shout. [file: true;" in words
    assert "--a-b.must TEXT It must be given. [file: m;" in words
    assert "a_b, made by ode: --a_b.port NUMBER The port. [default: 1;" in words
    done = tamed(
        "check", "--plugin-dir", tmp_path, file, "--a-b.port", "8", "--a_b.port", "9", "--a_b.must", "n"
    )
    assert "port=8, loud=True" in done.out
    assert "port=9, loud=False" in done.out


def test_an_application_has_no_options(tamed: Tamed, tmp_path: Path) -> None:
    """The help of an application says that it has no options, and flags are refused."""
    file = tmp_path / "verse.py"
    file.write_text("from tamed import Application\napplication = Application('verse')")
    assert "An application has no options of its own." in tamed("run", file, "--help").out
    done = tamed("check", file, "--port", "1")
    assert done.status == 64
    assert done.err.startswith("tamed: unknown option '--port'; ")
    assert tamed("check", file, "--").out == "verse  Application\n"


def test_the_options_of_the_daemon_are_listed_by_section(tamed: Tamed) -> None:
    """Options are under the headings of the reference, each once and in the same order."""
    page = (Path(__file__).parents[2] / "docs" / "reference" / "daemon-options.md").read_text("utf-8")
    headings = [line.removeprefix("## ") for line in page.splitlines() if line.startswith("## ")]
    _, out, _ = tamed("run", "--help")
    listed = [line.removesuffix(":") for line in out.splitlines() if line.endswith(":") and line[0] != " "]
    assert listed == ["Options", *headings]
