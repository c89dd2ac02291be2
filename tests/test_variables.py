"""``PACKAGE.MODULE:VARIABLE``."""

import importlib
import os
import re

import pytest

from tamed._os.variables import VariableName, import_variable, missing_module


def test_a_name_is_read_and_its_value_found() -> None:
    """The variable may be an attribute of another one."""
    name = VariableName.parse("os.path:join.__name__")
    assert (name.module, name.variable) == ("os.path", "join.__name__")
    assert name.value_in(importlib.import_module(name.module)) == "join"
    with pytest.raises(AttributeError):
        VariableName.parse("os:no_such_thing").value_in(os)


@pytest.mark.parametrize("text", ["", "os", "os:", ":path", "os:path:join", "os.:path", "a/b:c", "os:1"])
def test_other_texts_are_refused(text: str) -> None:
    """What was expected is said."""
    with pytest.raises(ValueError, match=r"^expected PACKAGE.MODULE:VARIABLE$"):
        VariableName.parse(text)


def test_an_entry_point_may_be_a_module() -> None:
    """Without a variable it is the module itself."""
    assert import_variable("re") is re
    assert import_variable("re:Pattern.match") is re.Pattern.match


@pytest.mark.parametrize(
    ("wanted", "missing"),
    [("no_such.module", "no_such"), ("no_such", "no_such"), ("no_such_either", None), ("os", None)],
)
def test_what_is_missing_is_distinguished_from_what_it_imports(wanted: str, missing: str | None) -> None:
    """A module that is there, and imports one that is not, is not missing."""
    assert missing_module(ModuleNotFoundError("none", name="no_such"), wanted) == missing
    assert missing_module(ValueError(), wanted) is None
