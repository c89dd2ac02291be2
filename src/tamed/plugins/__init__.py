"""Plugins: their contract, their options, and discovery.

A plugin is a function that makes a service from options; the options are a dataclass. Both are declared
once, with ``plugin`` and ``option``, and everything else is derived from that.

The types of options are str, int, float, bool, Path, Duration, Size, enumerations (written by their values
when all of those are texts, by their names in lower case with dashes otherwise), Literal, every class with a
class method ``parse(text)`` that raises ValueError (and, if it has paths, a method ``relative_to(folder)``),
lists, tuples and sets of these, dicts with texts as keys, unions and None.
"""
