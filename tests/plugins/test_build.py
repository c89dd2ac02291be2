import json
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Any

import pytest

from tamed.errors import ApplicationFailed, ConfigurationError, TamedError, UsageError
from tamed.plugins.build import Given, build
from tamed.plugins.option import option


@dataclass
class Options:
    port: int = option(10000, "The port.", short="p")
    poem_two: Path | None = option(None, "Another poem.")
    listen: list[str] = option([], "Where to listen.")


class EvenNumber(int):
    """A user's own type that is a number."""

    @classmethod
    def parse(cls, text: str) -> "EvenNumber":
        if int(text) % 2:
            raise ValueError(f"{text!r}: expected an even number")
        return cls(int(text))


def test_the_command_line_comes_before_the_environment_before_the_file_before_the_default() -> None:
    """Each option comes from the first source that has it."""
    table: Mapping[str, object] = {"port": 3, "poem-two": "file"}
    environ = {"TAMED_FASTPOETRY_PORT": "2"}
    flags: Mapping[str, object] = {"port": "1"}
    assert build(Options, Given()).port == 10000
    assert build(Options, Given(table=table)).port == 3
    assert build(Options, Given(service="fastpoetry", table=table, environ=environ)).port == 2
    options = build(Options, Given(service="fastpoetry", table=table, environ=environ, flags=flags))
    assert options == Options(port=1, poem_two=Path("file"))


def test_lists_are_replaced_and_not_added_up() -> None:
    """A list on the command line replaces the whole list of the file."""
    given = Given(flags={"listen": ["a", "b,c"]}, table={"listen": ["d"]})
    assert build(Options, given).listen == ["a", "b,c"]


def test_what_was_given_is_plain_data() -> None:
    """Everything except the folders survives JSON, so another process can build the same options."""
    given = Given(
        service="s", flags={"port": "1", "listen": ["a"]}, table={"poem_two": "x"}, file="f", section="t"
    )
    again = Given(**json.loads(json.dumps(given._asdict())))
    assert again == given
    assert build(Options, again) == build(Options, given)


def test_each_source_says_where_the_mistake_is() -> None:
    """The message is the same in each source, preceded by the flag, variable or key."""
    why = "expected a whole number, got 'abc'"
    for source, kind, says in (
        (Given(flags={"port": "abc"}), UsageError, f"--port: {why}"),
        (
            Given(service="fastpoetry", environ={"TAMED_FASTPOETRY_PORT": "abc"}),
            ConfigurationError,
            f"TAMED_FASTPOETRY_PORT: {why}",
        ),
        (
            Given(table={"port": "abc"}, file="verse.toml", section="services.ecstasy"),
            ConfigurationError,
            f"verse.toml: services.ecstasy.port: {why}",
        ),
    ):
        with pytest.raises(TamedError) as caught:
            build(Options, source)
        assert str(caught.value) == says
        assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("key", "remedy"),
    [
        ("prot", "did you mean 'port'?"),
        ("poem_tow", "did you mean 'poem-two'?"),
        ("zzz", "known keys: port, poem-two, listen"),
    ],
)
def test_an_unknown_key_is_refused(key: str, remedy: str) -> None:
    """The message names the nearest known key, or all of them."""
    with pytest.raises(ConfigurationError) as caught:
        build(Options, Given(table={key: 1}, file="verse.toml", section="services.ecstasy"))
    assert str(caught.value) == f"verse.toml: services.ecstasy: unknown key {key!r}; {remedy}"


def test_an_unknown_flag_is_refused() -> None:
    """Flags that only another version of a plugin has are reported."""
    with pytest.raises(UsageError, match=r"^unknown option --poem-tow; did you mean '--poem-two'\?$"):
        build(Options, Given(flags={"poem_tow": "x"}))
    with pytest.raises(UsageError, match=r"^unknown option --x; known flags: --port, --poem-two, --listen$"):
        build(Options, Given(flags={"x": "x"}))


def test_flags_may_have_a_prefix() -> None:
    """The prefix of flags is in every message."""
    with pytest.raises(UsageError, match=r"^--ecstasy\.port: expected a whole number, got 'x'$"):
        build(Options, Given(flags={"port": "x"}, flag_prefix="ecstasy."))
    with pytest.raises(UsageError, match=r"^unknown option --log-prot; did you mean '--log-port'\?$"):
        build(Options, Given(flags={"prot": "x"}, flag_prefix="log-"))


def test_a_class_without_options_says_so() -> None:
    """For a plugin without options, the message lists none."""
    with pytest.raises(ConfigurationError, match="unknown key 'port'; it has no options"):
        build(make_dataclass("Empty", []), Given(table={"port": 1}, file="f"))


def test_a_key_may_be_written_with_dashes_or_underscores_but_not_twice() -> None:
    """Both spellings of a key are equivalent."""
    assert build(Options, Given(table={"poem_two": "x"})) == build(Options, Given(table={"poem-two": "x"}))
    with pytest.raises(ConfigurationError, match=r"f: s\.poem-two: it is set twice, also as 'poem_two'"):
        build(Options, Given(table={"poem-two": "x", "poem_two": "x"}, file="f", section="s"))


def test_a_missing_option_is_reported_with_every_way_to_give_it() -> None:
    """The flag, the variable and the key are suggested; the party at fault depends on the file."""

    @dataclass
    class Proxy:
        up_stream: str = option(help="Where from.")
        token: str = option("", env=False)

    ways = "give --up-stream TEXT, set TAMED_PROXY_UP_STREAM or write 'up-stream' in the deployment file"
    with pytest.raises(UsageError) as usage:
        build(Proxy, Given(service="proxy"))
    assert str(usage.value) == f"--up-stream: 'up-stream' is required; {ways}"
    with pytest.raises(ConfigurationError) as configuration:
        build(Proxy, Given(service="proxy", file="verse.toml", section="services.p"))
    assert str(configuration.value) == f"verse.toml: services.p: 'up-stream' is required; {ways}"


def test_an_option_without_a_variable_is_not_read_from_the_environment() -> None:
    """With env=False the variable is ignored, and not suggested."""

    @dataclass
    class Private:
        token: str = option(env=False)

    with pytest.raises(UsageError) as caught:
        build(Private, Given(service="x", environ={"TAMED_X_TOKEN": "y"}))
    assert "TAMED" not in str(caught.value)


@pytest.mark.parametrize("source", ["flags", "environ", "table"])
def test_a_secret_is_in_no_error(source: str) -> None:
    """Neither the message nor the traceback contains the value."""

    @dataclass
    class Login:
        pin: EvenNumber = option(secret=True)

    name = {"environ": "TAMED_S_PIN"}.get(source, "pin")
    given: dict[str, Any] = {"service": "s", source: {name: "31337"}}
    why = "expected an even number$" if source != "flags" else "every user of this machine can read"
    with pytest.raises(TamedError, match=why) as caught:
        build(Login, Given(**given))
    assert "31337" not in "".join(traceback.format_exception(caught.value))


def test_relative_paths_start_where_their_source_is() -> None:
    """The command line and the file may have different folders; absolute paths are unchanged."""

    @dataclass
    class Paths:
        a: Path = option()
        b: list[Path] = option()
        c: Path = option()
        d: Path = option(Path("default"))

    given = Given(
        flags={"a": "a"},
        table={"b": ["b"], "c": "/c"},
        flags_folder=Path("/here"),
        file_folder=Path("/there"),
    )
    options = build(Paths, given)
    assert (options.a, options.b, options.c) == (Path("/here/a"), [Path("/there/b")], Path("/c"))
    assert options.d == Path("default")


def test_paths_inside_of_a_users_type_start_there_too() -> None:
    """A type with a method ``relative_to`` resolves its own paths, if the folder is known."""

    @dataclass(frozen=True)
    class Log:
        path: Path

        @classmethod
        def parse(cls, text: str) -> "Log":
            return cls(Path(text))

        def relative_to(self, folder: Path) -> "Log":
            return Log(folder / self.path)

    options_type = make_dataclass("Logs", [("logs", list[Log])])
    given = Given(table={"logs": ["a", "/b"]}, file_folder=Path("/there"))
    assert build(options_type, given).logs == [Log(Path("/there/a")), Log(Path("/b"))]
    assert build(options_type, Given(flags={"logs": ["a"]})).logs == [Log(Path("a"))]


def test_a_class_may_check_its_options_against_each_other() -> None:
    """A ValueError from the class is an error of the given options."""

    @dataclass
    class Pair:
        poem: str = option("")
        port: int = option(0)

        def __post_init__(self) -> None:
            if self.poem and not self.port:
                raise ValueError("a poem needs a port")

    with pytest.raises(UsageError, match=r"^options of verse: a poem needs a port$"):
        build(Pair, Given(service="verse", flags={"poem": "x"}))
    with pytest.raises(ConfigurationError, match=r"^verse\.toml: services.x: a poem needs a port$"):
        build(Pair, Given(service="verse", table={"poem": "x"}, file="verse.toml", section="services.x"))


def test_a_wrong_declaration_is_the_fault_of_the_program() -> None:
    """Building needs a valid options class."""
    with pytest.raises(ApplicationFailed):
        build(make_dataclass("Options", [("value", complex)]), Given())
