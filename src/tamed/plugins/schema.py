"""JSON Schema (draft 2020-12) of the values that a deployment file may give to options."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from tamed.plugins._compound import Many, OneOf, Pairs
from tamed.plugins._readers import Choice, Limited, Number, Parsed, Reader, Truth
from tamed.plugins.describe import Option
from tamed.plugins.option import Limits

__all__ = ["properties_of", "schema_of"]

Schema = dict[str, Any]

_WORDS: Final[Mapping[str, str]] = {
    "gt": "exclusiveMinimum",
    "ge": "minimum",
    "lt": "exclusiveMaximum",
    "le": "maximum",
}
_JSON = (bool, int, float, str)


def properties_of(options: Iterable[Option]) -> Schema:
    """Return the properties of a table with these options, each in both spellings of its key."""
    properties: Schema = {}
    for option in options:
        schema = schema_of(option)
        properties[option.key] = schema
        if option.name != option.key:
            properties[option.name] = {**schema, "deprecated": True}
    return properties


def schema_of(option: Option) -> Schema:
    """Return the schema of an option's value, with its help text and its default.

    For a class with a method ``parse`` it is any text: only the class knows which ones are valid.
    """
    schema = _of(option.reader)
    if option.help:
        schema["description"] = option.help
    if not option.secret and not option.required and isinstance(option.default, _JSON):
        plain = type(option.default) in _JSON
        schema["default"] = option.default if plain else option.default_text
    return schema


def _of(reader: Reader) -> Schema:
    match reader:
        case Truth():
            return {"type": "boolean"}
        case Number():
            return {"type": "integer" if reader.kind is int else "number"}
        case Limited():
            return _limited(_of(reader.reader), reader.limits)
        case Parsed():
            return {"type": ["string", "number"]} if reader.is_number else {"type": "string"}
        case Choice():
            return {"enum": list(reader.members) if reader.by_text else list(reader.members.values())}
        case Many():  # a single value means a list of one
            item = _of(reader.item)
            return {"anyOf": [{"type": "array", "items": item}, item]}
        case Pairs():
            return {"type": "object", "additionalProperties": _of(reader.item)}
        case OneOf():
            several = [_of(each) for each in reader.readers]
            return several[0] if len(several) == 1 else {"anyOf": several}
        case _:  # texts and paths
            return {"type": "string"}


def _limited(schema: Schema, limits: Limits) -> Schema:
    given = {name: value for name, value in limits._asdict().items() if value is not None}
    return schema | {_WORDS[name]: value for name, value in given.items()}
