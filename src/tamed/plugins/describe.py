"""Descriptions of the options of a class, one for each field.

The command line, the environment, the deployment file, the help text and the documentation are all made
from these descriptions, so they cannot disagree.
"""

import dataclasses
import enum
import re
import types
import typing
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from tamed.errors import ApplicationFailed, reason
from tamed.plugins._readers import Choice, Many, Number, OneOf, Pairs, Parsed, Paths, Reader, Text, Truth
from tamed.plugins.option import METADATA, REQUIRED, Declaration

__all__ = ["Option", "describe", "reader_of", "variable_of"]


_JSON = (bool, int, float, str)
RESERVED = {
    "help": "it is the flag of the help text",
    "plugin": "it names the plugin in a deployment file",
}


class Option(NamedTuple):
    """One option, as its class declares it. Made by ``describe``."""

    name: str
    """The field's name: ``poem_two``. Values from the command line are kept under it."""
    key: str
    """The key in a deployment file: ``poem-two``. The file may have ``poem_two`` instead."""
    flag: str
    """The long flag: ``--poem-two``."""
    off_flag: str
    """The long flag that turns a boolean option off, ``--no-tls``; empty for all others."""
    short: str
    """The short flag: ``-p``; empty when there is none."""
    type: Any
    """The annotation, resolved."""
    help: str
    """The purpose of the option, as a sentence; or empty."""
    default: object
    """The default, or ``REQUIRED``. For a mutable default this is one example."""
    default_text: str
    """The default as on the command line; empty for None, for a secret, and without a default."""
    metavar: str
    """The placeholder for the value in a help text: ``PATH``; empty for a boolean option."""
    required: bool
    """Whether it must be given."""
    repeatable: bool
    """Whether the flag may be given more than once: lists, sets and tables (``KEY=VALUE``)."""
    boolean: bool
    """Whether the flag takes no value."""
    path: bool
    """Whether the values are files or folders, which a shell can complete."""
    choices: tuple[str, ...]
    """All accepted values; empty when there are too many to list."""
    env: bool
    """Whether an environment variable sets it."""
    secret: bool
    """Whether the value must not be shown."""
    section: str
    """Its heading in the help text; empty for the usual one."""
    reader: Reader
    """Reads the values. Private to this folder."""

    def __repr__(self) -> str:
        return f"<Option {self.flag}>"  # the default may be a secret

    def variable(self, service: str = "") -> str:
        """Return the environment variable for a service's option, see `variable_of`."""
        return variable_of(service, self.key)

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of its values in a deployment file, with the help text and the default."""
        schema = dict(self.reader.schema)
        if self.help:
            schema["description"] = self.help
        if not self.secret and isinstance(self.default, _JSON):
            is_plain = type(self.default) in _JSON
            schema["default"] = self.default if is_plain else self.default_text
        return schema


def variable_of(service: str, key: str) -> str:
    """Return the environment variable for an option of a service: ``TAMED_FASTPOETRY_POEM_TWO``.

    Every character except ASCII letters and digits becomes an underscore.
    """
    name = "_".join(filter(None, ("tamed", service, key.strip("_"))))
    return re.sub("[^A-Z0-9]", "_", name.upper())


def describe(options_type: type) -> tuple[Option, ...]:
    """Describe every option of a dataclass, in the order of its fields.

    Fields made with ``option`` and plain fields are options; those with ``init=False`` are not. A default
    factory is called once, for the description.

    Raises ApplicationFailed, naming class and field, for a mistake in the declaration: no dataclass, an
    annotation that cannot be resolved or has no reader, a default of another type, a duplicate flag.
    """
    return _describe_all(options_type)


@lru_cache(maxsize=64)  # called several times during a start
def _describe_all(options_type: type) -> tuple[Option, ...]:
    fields = _fields(options_type)
    hints = _hints(options_type, fields)
    options = tuple(_describe(options_type, field, hints[field.name]) for field in fields)
    _refuse_duplicates(options_type, options)
    return options


def _fields(options_type: type) -> list[dataclasses.Field[Any]]:
    # A subclass without a decorator of its own is a dataclass by inheritance, with none of its own fields.
    if "__dataclass_fields__" not in vars(options_type):
        raise ApplicationFailed(
            f"options {options_type.__qualname__}",
            "the class is not a dataclass",
            "decorate it with @dataclass",
        )
    return [field for field in dataclasses.fields(options_type) if field.init]


def _hints(options_type: type, fields: list[dataclasses.Field[Any]]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(options_type, include_extras=True)
    except Exception as error:  # a text may be anything
        name = getattr(error, "name", None)
        at = next((f".{field.name}" for field in fields if name in re.findall(r"\w+", str(field.type))), "")
        raise ApplicationFailed(
            f"option {options_type.__qualname__}{at}",
            f"the annotation cannot be resolved: {reason(error)}",
            "define or import the name at the top of the module, not only under TYPE_CHECKING",
        ) from error


def _describe(options_type: type, field: dataclasses.Field[Any], hint: Any) -> Option:
    declared: Declaration = field.metadata.get(METADATA, Declaration())
    where = f"option {options_type.__qualname__}.{field.name}"
    try:
        reader = reader_of(hint)
        if any(limit is not None for limit in declared.limits):
            reader = reader.within(declared.limits)
    except TypeError as error:
        raise ApplicationFailed(where, str(error)) from error
    default = _default(field)
    if default is not REQUIRED and not reader.holds(default):
        shown = "its default" if declared.secret else f"its default {default!r}"
        raise ApplicationFailed(where, f"{shown} does not match its type: {reader.expected}")
    if declared.short is not None and not re.fullmatch("[A-Za-z0-9]", declared.short):
        raise ApplicationFailed(
            where, f"the short flag {declared.short!r} is not one letter", 'write short="p"'
        )
    key = field.name.strip("_").replace("_", "-")
    return Option(
        name=field.name,
        key=key,
        flag=f"--{key}",
        off_flag=f"--no-{key}" if reader.boolean else "",
        short=f"-{declared.short}" if declared.short else "",
        type=hint,
        help=declared.help,
        default=default,
        default_text="" if declared.secret or default is REQUIRED else reader.text(default),
        metavar="" if reader.boolean else declared.metavar or reader.metavar,
        required=default is REQUIRED,
        repeatable=reader.many,
        boolean=reader.boolean,
        path=reader.path,
        choices=reader.choices,
        env=declared.env,
        secret=declared.secret,
        section=declared.section,
        reader=reader,
    )


def _default(field: dataclasses.Field[Any]) -> object:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return REQUIRED


def _refuse_duplicates(options_type: type, options: tuple[Option, ...]) -> None:
    taken: dict[str, str] = {"-h": "the help text"}
    for option in options:
        where = f"option {options_type.__qualname__}.{option.name}"
        if option.key in RESERVED:
            raise ApplicationFailed(where, f"the name is reserved: {RESERVED[option.key]}", "rename it")
        for flag in filter(None, (option.flag, option.off_flag, option.short)):
            if flag in taken:
                raise ApplicationFailed(
                    where, f"the flag {flag} is taken by {taken[flag]}", "rename one of them"
                )
            taken[flag] = option.name


def reader_of(hint: Any) -> Reader:
    """Return the reader for an annotation; raise TypeError, with the reason, if there is none."""
    while (alias := getattr(hint, "__supertype__", None) or getattr(hint, "__value__", None)) is not None:
        hint = alias  # of a NewType, or of a `type` statement
    build = _BUILDERS.get(get_origin(hint) or hint)
    if build is not None:
        return build(hint)
    if isinstance(hint, type) and callable(getattr(hint, "parse", None)):
        return Parsed(hint)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _enumeration(hint)
    raise TypeError(
        f"{_name(hint)} is not an option type; use str, int, float, bool, Path, Duration, Size, an enum"
        ", Literal, a list, tuple, set or dict of those, or a class with a class method parse(text)"
    )


def _literal(hint: Any) -> Reader:
    values = get_args(hint)
    if not all(type(value) in {str, int} for value in values):
        raise TypeError(f"{_name(hint)}: a Literal may only contain texts and whole numbers")
    return Choice({str(value): value for value in values}, by_text=False)


def _enumeration(kind: type[enum.Enum]) -> Reader:
    """Write members by their values if all are texts, otherwise by their names: ``--level very-high``."""
    members = list(kind)
    if not members:
        raise TypeError(f"{_name(kind)} has no members")
    by_value = all(isinstance(member.value, str) for member in members)
    texts = (each.value if by_value else each.name.lower().replace("_", "-") for each in members)
    return Choice(dict(zip(texts, members, strict=True)), by_text=True)


def _collection(hint: Any) -> Reader:
    kind = get_origin(hint) or hint
    arguments = get_args(hint)
    if kind is tuple and not (len(arguments) == 2 and arguments[1] is Ellipsis):
        raise TypeError(f"{_name(hint)}: a tuple must have any length: tuple[int, ...]")
    item = reader_of(arguments[0] if arguments else str)
    if item.many:
        raise TypeError(f"{_name(hint)}: a list of lists cannot be written on the command line")
    return Many(item, kind)


def _table(hint: Any) -> Reader:
    key, value = get_args(hint) or (str, str)
    if key is not str:
        raise TypeError(f"{_name(hint)}: the keys of a table must be texts: dict[str, int]")
    return Pairs(reader_of(value))


def _union(hint: Any) -> Reader:
    members = [member for member in get_args(hint) if member is not type(None)]
    readers = [reader_of(member) for member in members]
    if len(readers) > 1 and any(reader.many for reader in readers):
        raise TypeError(f"{_name(hint)}: a union with a list or a table may only add None")
    return OneOf(readers, optional=type(None) in get_args(hint))


def _name(hint: Any) -> str:
    return (
        hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("typing.", "")
    )


_BUILDERS: dict[Any, Callable[[Any], Reader]] = {
    str: lambda _: Text(),
    bool: lambda _: Truth(),
    int: Number,
    float: Number,
    Path: lambda _: Paths(),
    Literal: _literal,
    Union: _union,
    types.UnionType: _union,
    Annotated: lambda hint: reader_of(get_args(hint)[0]),  # the metadata belongs to other libraries
    list: _collection,
    tuple: _collection,
    set: _collection,
    frozenset: _collection,
    dict: _table,
}
