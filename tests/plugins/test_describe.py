import dataclasses
import enum
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NewType

import pytest

from tamed.errors import ApplicationFailed
from tamed.plugins.describe import Option, describe
from tamed.plugins.option import REQUIRED, option
from tamed.plugins.values import Duration, Size

Port = NewType("Port", int)


class Level(enum.Enum):
    LOW = 1
    VERY_HIGH = 2


class Colour(enum.Enum):
    RED = "rot"
    BLUE = "blau"


class Nothing(enum.Enum):
    pass


@dataclass
class Poetry:
    port: int = option(10000, "The port.", short="p")
    poem_two: Path | None = option(None, "A poem.", metavar="FILE")
    tls: bool = option(default=False)
    listen: list[str] = option(["a", "b"])
    upstream: str = option(help="Where from.")
    password: str = option("hunter2", secret=True, env=False)
    plain: Duration = Duration("30s")
    lines: list[int] = field(default_factory=lambda: [1])
    from_: str = "here"
    given_later: int = field(init=False, default=1)
    shared: ClassVar[int] = 3


def described(options_type: type, name: str) -> Option:
    """Describe one option of a class."""
    return next(each for each in describe(options_type) if each.name == name)


def one(hint: Any, default: object = REQUIRED) -> Option:
    """Describe the only option of a class made for it."""
    made = dataclasses.make_dataclass("Options", [("value", hint, option(default))])
    return describe(made)[0]


def test_every_field_that_can_be_given_is_an_option() -> None:
    """Options have the order of the fields; class variables and init=False fields are none."""
    assert [each.name for each in describe(Poetry)] == (
        ["port", "poem_two", "tls", "listen", "upstream", "password", "plain", "lines", "from_"]
    )


def test_a_description_has_all_that_a_command_line_needs() -> None:
    """Flags, key, help, default and type come from the declaration."""
    port = described(Poetry, "port")
    assert (port.key, port.flag, port.short, port.off_flag) == ("port", "--port", "-p", "")
    assert (port.type, port.help, port.default, port.default_text) == (int, "The port.", 10000, "10000")
    assert (port.required, port.repeatable, port.boolean, port.path) == (False, False, False, False)
    assert (port.metavar, port.choices, port.env, port.secret) == ("NUMBER", (), True, False)


def test_underscores_are_dashes_outside_of_python() -> None:
    """Flags and keys have dashes, the variable has underscores; a trailing underscore is dropped."""
    poem = described(Poetry, "poem_two")
    assert (poem.key, poem.flag, poem.metavar, poem.path) == ("poem-two", "--poem-two", "FILE", True)
    assert poem.variable("fast-poetry.1") == "TAMED_FAST_POETRY_1_POEM_TWO"
    assert poem.variable() == "TAMED_POEM_TWO"
    assert described(Poetry, "from_").flag == "--from"


def test_a_boolean_option_has_a_flag_to_turn_it_off() -> None:
    """A boolean option takes no value and has no metavar."""
    tls = described(Poetry, "tls")
    assert (tls.boolean, tls.flag, tls.off_flag, tls.metavar) == (True, "--tls", "--no-tls", "")
    assert tls.default_text == "false"
    assert one(bool | None, None).boolean


def test_a_required_option_has_no_default() -> None:
    """REQUIRED replaces the default, whose text is empty."""
    upstream = described(Poetry, "upstream")
    assert upstream.required
    assert upstream.default is REQUIRED
    assert upstream.default_text == ""


def test_a_secret_is_in_no_text() -> None:
    """Neither the description nor the options show a secret default."""
    assert described(Poetry, "password").default_text == ""
    assert "hunter2" not in repr(describe(Poetry))
    assert "hunter2" not in repr(Poetry(upstream="x"))


def test_options_are_ordinary_dataclasses() -> None:
    """A test can construct the options directly, and each instance has its own list."""
    first, second = Poetry(upstream="x"), Poetry(upstream="x", port=0)
    first.listen.append("c")
    assert second.listen == ["a", "b"]
    assert (first.port, second.port) == (10000, 0)
    assert isinstance(first.plain, Duration)
    with pytest.raises(TypeError, match="upstream"):
        Poetry()


@pytest.mark.parametrize(
    ("hint", "default", "text", "metavar"),
    [
        (str, "x", "x", "TEXT"),
        (float, 1, "1", "NUMBER"),
        (Path, Path("/a"), "/a", "PATH"),
        (Duration, Duration(5400), "1h30m", "DURATION"),
        (Size | None, Size(10**6), "1 MB", "SIZE"),
        (Level, Level.VERY_HIGH, "very-high", "low|very-high"),
        (Colour, Colour.RED, "rot", "rot|blau"),
        (Literal["a", 2], 2, "2", "a|2"),
        (list[Level], [Level.LOW, Level.VERY_HIGH], "low,very-high", "low|very-high"),
        (tuple[int, ...], (1, 2), "1,2", "NUMBER"),
        (set[str], set(), "", "TEXT"),
        (frozenset[str], frozenset("a"), "a", "TEXT"),
        (list, ["a"], "a", "TEXT"),
        (dict[str, int], {"a": 1, "b": 2}, "a=1,b=2", "KEY=NUMBER"),
        (dict[str, bool], {"a": True}, "a=true", "KEY=VALUE"),
        (dict, {}, "", "KEY=TEXT"),
        (int | Literal["auto"], "auto", "auto", "NUMBER|auto"),
        (Annotated[int, "a note of somebody else"], 6, "6", "NUMBER"),
        (Port, 5, "5", "NUMBER"),
        (Path | None, None, "", "PATH"),
    ],
)
def test_each_type_has_a_text_for_its_default(hint: Any, default: object, text: str, metavar: str) -> None:
    """The default is written as on the command line, and the metavar names the value."""
    each = one(hint, default)
    assert (each.default_text, each.metavar) == (text, metavar)


def test_choices_are_listed() -> None:
    """An enumeration is written by its values when all are texts, else by its names."""
    assert one(Level).choices == ("low", "very-high")
    assert one(list[Colour]).choices == ("rot", "blau")
    assert one(Literal["a", 2] | None).choices == ("a", "2")
    assert one(bool).choices == ()


def test_collections_are_repeatable() -> None:
    """Lists, sets and tables are given one item at a time."""
    hints: list[Any] = [list[int], set[int], tuple[int, ...], dict[str, int], list[int] | None]
    assert all(one(hint).repeatable for hint in hints)
    assert not one(int | None).repeatable
    assert one(list[Path]).path


@pytest.mark.parametrize(
    ("hint", "says"),
    [
        (complex, "complex is not an option type"),
        (Any, "Any is not an option type"),
        (int | complex, "complex is not an option type"),
        (list[list[int]], "a list of lists cannot be written"),
        (tuple[int, str], "a tuple must have any length"),
        (dict[int, str], "the keys of a table must be texts"),
        (Literal[True], "may only contain texts and whole numbers"),
        (list[int] | str, "a union with a list or a table may only add None"),
        (Nothing, "has no members"),
    ],
)
def test_a_type_that_nothing_can_read_is_refused(hint: Any, says: str) -> None:
    """The error names class and field, and the problem with the type."""
    with pytest.raises(ApplicationFailed) as caught:
        one(hint)
    assert caught.value.what == "option Options.value"
    assert says in caught.value.why


@pytest.mark.parametrize(
    ("hint", "default"),
    [
        (Duration, "30s"),
        (Duration, 30),
        (Path, "x"),
        (int, True),
        (float, True),
        (float, "1"),
        (str, None),
        (list[int], ["1"]),
        (Level, "low"),
        (Literal["a"], "b"),
        (dict[str, int], {"a": "b"}),
    ],
)
def test_a_default_of_another_type_is_refused(hint: Any, default: object) -> None:
    """A directly constructed instance has defaults of the declared type."""
    with pytest.raises(
        ApplicationFailed, match=r"^option Options.value: its default .* does not match its type"
    ):
        one(hint, default)


def test_the_default_of_a_secret_is_not_shown_in_the_error_about_it() -> None:
    """An invalid secret default is reported without its value."""

    @dataclass
    class Options:
        password: int = option("hunter2", secret=True)

    with pytest.raises(ApplicationFailed, match="its default does not match its type") as caught:
        describe(Options)
    assert "hunter2" not in str(caught.value)


def test_an_annotation_that_is_no_expression_is_refused() -> None:
    """Any problem with an annotation names the class."""
    made = dataclasses.make_dataclass("Options", [("value", "int or")])
    with pytest.raises(
        ApplicationFailed, match=r"^option Options: the annotation cannot be resolved: SyntaxError"
    ):
        describe(made)


def test_what_is_no_dataclass_is_refused() -> None:
    """A class without the decorator is refused, even if its base is a dataclass."""

    class Plain:
        port: int = 1

    class Child(Poetry):
        more: int = option(1)

    for each in (Plain, Child):
        with pytest.raises(
            ApplicationFailed,
            match=f"{each.__name__}: the class is not a dataclass; decorate it with @dataclass",
        ):
            describe(each)


def test_flags_are_unique() -> None:
    """Two options with the same flag are refused, with the names of both."""

    @dataclass
    class Short:
        port: int = option(1, short="p")
        poem: int = option(1, short="p")

    @dataclass
    class Off:
        tls: bool = False
        no_tls: bool = False

    @dataclass
    class Help:
        host: int = option(1, short="h")

    for each, says in (
        (Short, "poem: the flag -p is taken by port"),
        (Off, "no_tls: the flag --no-tls is taken by tls"),
        (Help, "host: the flag -h is taken by the help text"),
    ):
        with pytest.raises(ApplicationFailed, match=says):
            describe(each)


@pytest.mark.parametrize("name", ["help", "plugin"])
def test_reserved_names_are_refused(name: str) -> None:
    """Names that the command line or the file reserves are refused."""
    made = dataclasses.make_dataclass("Options", [(name, int, 1)])
    with pytest.raises(ApplicationFailed, match=f"Options.{name}: the name is reserved"):
        describe(made)


@pytest.mark.parametrize("short", ["", "pp", "-p", "é"])
def test_a_short_flag_is_one_letter(short: str) -> None:
    """A short flag must be one ASCII letter or digit."""
    made = dataclasses.make_dataclass("Options", [("port", int, option(1, short=short))])
    with pytest.raises(ApplicationFailed, match="is not one letter"):
        describe(made)


def test_annotations_may_be_texts(tmp_path: Path) -> None:
    """Types are resolved from texts, and one that cannot be is named with class and field."""
    (tmp_path / "late.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from typing import TYPE_CHECKING\n"
        "from tamed.plugins.describe import describe; from tamed.plugins.option import option\n"
        "if TYPE_CHECKING:\n    from elsewhere import Unknown\n"
        "@dataclass\nclass Good:\n    port: int | None = option(1)\n    other: Later | None = None\n"
        "@dataclass\nclass Bad:\n    port: int = 1\n    thing: Unknown | None = None\n"
        "class Later:\n    @classmethod\n    def parse(cls, text: str) -> Later: ...\n"
        "print([each.type for each in describe(Good)])\n"
        "try:\n    describe(Bad)\nexcept Exception as error:\n    print(error)\n"
    )
    out = subprocess.run(
        [sys.executable, tmp_path / "late.py"], capture_output=True, text=True, check=True
    ).stdout
    assert out.splitlines()[0] == "[int | None, __main__.Later | None]"
    assert out.splitlines()[1].startswith(
        "option Bad.thing: the annotation cannot be resolved: NameError: name 'Unknown'"
    )
