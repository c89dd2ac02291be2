"""The grammar of command lines."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamed._os.variables import import_variable
from tamed.cli.commands import COMMANDS, TAMED
from tamed.cli.grammar import (
    HELP,
    Argument,
    Command,
    Option,
    UnknownOption,
    one_of,
    parse,
    whole_number,
)
from tamed.errors import UsageError

VERSE = Command(
    "verse",
    "Write a verse.",
    arguments=(
        Argument("lines", "LINES", read=whole_number(1, 99)),
        Argument("title", "TITLE", required=False),
    ),
    options=(
        Option("-m --mood --temper", "The mood.", "MOOD", name="mood", read=one_of("sad", "gay")),
        Option("-r --rhyme", "With rhymes.", off_flags=("--no-rhyme",)),
        Option("--muse", "A muse.", "NAME", repeatable=True),
        Option("--ink", "The ink.", "COLOUR", group="pen"),
    ),
)
RUN = Command(
    "run", "Run it.", arguments=(Argument("target", "TARGET"),), options=VERSE.options, rest="[WORDS]"
)
NOTHING: dict[str, Any] = {"mood": None, "rhyme": None, "muse": [], "pen": {}, "title": None}


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["7"], {}),
        (["7", "ode"], {"title": "ode"}),
        (["--mood", "sad", "7"], {"mood": "sad"}),
        (["7", "--temper=gay"], {"mood": "gay"}),
        (["-m", "sad", "7"], {"mood": "sad"}),
        (["-msad", "7"], {"mood": "sad"}),
        (["-rm", "sad", "7"], {"mood": "sad", "rhyme": True}),
        (["-rmsad", "7"], {"mood": "sad", "rhyme": True}),
        (["--mood=sad", "7", "--mood=gay"], {"mood": "gay"}),
        (["--rhyme", "7", "--no-rhyme"], {"rhyme": False}),
        (["--muse", "a", "--muse=b=c", "--muse", "--rhyme", "7"], {"muse": ["a", "b=c", "--rhyme"]}),
        (["--muse=", "7"], {"muse": [""]}),
        (["--ink", "-", "7"], {"pen": {"ink": "-"}}),
        (["7", "-"], {"title": "-"}),
        (["7", ""], {"title": ""}),
        (["--", "7", "--rhyme"], {"title": "--rhyme"}),
        (["7", "--", "--"], {"title": "--"}),
    ],
    ids=" ".join,
)
def test_words_mean_what_they_mean_everywhere(words: list[str], meant: dict[str, Any]) -> None:
    """Words are parsed as by getopt_long(3), with options before, between and after the arguments."""
    assert parse(VERSE, words, "verse") == {**NOTHING, "lines": 7, **meant}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "missing argument 'LINES'; see `verse --help`"),
        (["7", "ode", "x"], "unexpected argument 'x'; see `verse --help`"),
        (["0"], "LINES: expected a whole number from 1 to 99, got '0'; see `verse --help`"),
        (["٣"], "LINES: expected a whole number from 1 to 99, got '٣'; see `verse --help`"),
        (["-m"], "option '-m' requires a value; see `verse --help`"),
        (["--mood=dull"], "--mood: expected sad or gay, got 'dull'; see `verse --help`"),
        (["--rhyme=yes"], "option '--rhyme' takes no value; see `verse --help`"),
        (["--rhym"], "unknown option '--rhym'; did you mean '--rhyme'? `verse --help` lists them"),
        (["-rx"], "unknown option '-x'; `verse --help` lists them"),
        (["-m=sad"], "-m: expected sad or gay, got '=sad'; see `verse --help`"),
    ],
)
def test_a_mistake_is_a_sentence_with_its_remedy(words: list[str], says: str) -> None:
    """The first wrong word is reported."""
    with pytest.raises(UsageError) as caught:
        parse(VERSE, words, "verse")
    assert str(caught.value) == says


def test_an_unknown_option_may_belong_elsewhere() -> None:
    """The declaration names the right place, unless an option of the command was meant."""
    hinting = Command("verse", "Print verses.", options=VERSE.options, hint="poems have more")
    with pytest.raises(
        UnknownOption, match=r"^unknown option '--title'; poems have more; see `verse --help`$"
    ):
        parse(hinting, ["--title", "x"], "verse")
    with pytest.raises(UnknownOption, match="did you mean '--muse'"):
        parse(hinting, ["--mus", "x"], "verse")


def test_what_is_behind_the_last_argument_is_left_alone() -> None:
    """Words that look like options, a help request or ``--`` are also passed on."""
    words = ["--mood", "x", "--", "--help", "-r"]
    given = parse(RUN, ["--rhyme", "ode", *words], "run")
    assert given is not None
    assert (given["rhyme"], given["target"], given["words"]) == (True, "ode", words)


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["-rh"], ["7", "--help", "--bogus"], ["--help=x"]])
def test_help_is_shown_before_anything_else_is_said(words: list[str]) -> None:
    """A help request precedes errors of later words, but not of earlier ones; it takes no value."""
    if words == ["--help=x"]:
        with pytest.raises(UsageError, match="takes no value"):
            parse(VERSE, words, "verse")
    else:
        assert parse(VERSE, words, "verse") is None


WORDS = (
    "7 ode - -- --mood --mood=sad -m -msad -r -rr --rhyme --no-rhyme --muse=a --muse -h --ink -x --mus sad ="
)


@given(st.lists(st.sampled_from([*WORDS.split(), ""]), max_size=8))
def test_every_line_is_read_or_refused(words: list[str]) -> None:
    """Any words give either values by name or a UsageError."""
    try:
        given = parse(VERSE, words, "verse")
    except UsageError:
        return
    assert given is None or given.keys() == {*NOTHING, "lines"}


@given(
    st.sampled_from([None, "sad", "gay"]),
    st.sampled_from([None, True, False]),
    st.lists(st.text(max_size=5)),
    st.randoms(use_true_random=False),
)
def test_every_spelling_means_the_same(
    mood: str | None, rhyme: bool | None, muse: list[str], random: Any
) -> None:
    """Options may be long or short, in one word or two, and in any order except for repeated ones."""
    groups = [["--muse", name] if random.random() < 0.5 else [f"--muse={name}"] for name in muse]
    if mood is not None:
        spelled = [["--mood", mood], [f"--temper={mood}"], ["-m", mood], [f"-m{mood}"]]
        groups.insert(random.randrange(len(groups) + 1), random.choice(spelled))
    if rhyme is not None:
        flag = random.choice(["--rhyme", "-r"]) if rhyme else "--no-rhyme"
        groups.insert(random.randrange(len(groups) + 1), [flag])
    groups.insert(random.randrange(len(groups) + 1), ["7"])
    words = [word for group in groups for word in group]
    meant = {**NOTHING, "lines": 7, "mood": mood, "rhyme": rhyme, "muse": muse}
    assert parse(VERSE, words, "verse") == meant


@pytest.mark.parametrize("command", [TAMED, *COMMANDS], ids=lambda command: command.name)
def test_declarations_are_whole(command: Command) -> None:
    """Each flag is unique, each option has help, and each command has a handler."""
    options = command.all_options()
    flags = [flag for option in options for flag in (*option.flags, *option.off_flags)]
    assert len(flags) == len(set(flags))
    assert all(option.help.endswith(".") for option in options)
    assert command.summary.endswith(".")
    assert (HELP in options) is command.has_help
    assert command is TAMED or callable(import_variable(command.handler))
