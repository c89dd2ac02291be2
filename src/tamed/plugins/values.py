"""Values with a unit: durations and sizes.

Both are numbers (of seconds, of bytes), so they are accepted wherever a number is. Arithmetic with them
gives plain numbers. Parsing computes in whole numbers, so only the last step rounds.
"""

import math
import re
from typing import Self

from tamed._os.text import value_text

# The longest text of a duration is that of the smallest float: 325 digits.

__all__ = ["Duration", "Size"]


_NUMBER = r"([0-9]{1,20})(?:\.([0-9]{1,400}))?"


class Duration(float):
    """A length of time in seconds: ``Duration("1h30m")``, ``Duration("500ms")``, ``Duration(30)``.

    Text is one or more numbers, each followed by its unit, the larger units first, each unit once:
    ``d`` (24 hours), ``h``, ``m``, ``s``, ``ms``. Numbers may have decimals (``1.5h``), spaces between
    the parts are allowed, and a number alone is seconds. A duration is finite, not negative, and at most
    36500 days, which every timeout of the operating system can hold.

    ``Duration(str(duration)) == duration`` holds for every duration. Raises ValueError, which names the
    expected form, for everything else.
    """

    __slots__ = ()

    def __new__(cls, value: str | float = 0) -> Self:
        """Read text, or take a number of seconds."""
        try:
            seconds = _seconds(value) if isinstance(value, str) else float(value)
        except OverflowError:  # a whole number that no float can hold
            seconds = None
        if seconds is None or not 0 <= seconds <= _LONGEST:
            raise ValueError(
                "expected a duration of at most 36500d, such as 30s, 5m, 1h30m or 500ms, "
                f"got {value_text(value)}"
            )
        return super().__new__(cls, seconds + 0.0)  # adding 0.0 makes a zero of a negative zero

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read text, as calling the class does; option types need the method by this name."""
        return cls(text)

    def __str__(self) -> str:
        """Return the shortest text in units that is exactly this duration: ``1h30m``."""
        whole, fraction = _decimals(float(self))
        if whole == 0 and 0 < len(fraction) <= 3:
            return f"{int(fraction.ljust(3, '0'))}ms"
        minutes, seconds = divmod(whole, 60)
        hours, minutes = divmod(minutes, 60)
        days, hours = divmod(hours, 24)
        parts = [f"{count}{unit}" for count, unit in ((days, "d"), (hours, "h"), (minutes, "m")) if count]
        if seconds or fraction or not parts:
            parts.append(f"{seconds}.{fraction}s" if fraction else f"{seconds}s")
        return "".join(parts)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class Size(int):
    """A number of bytes: ``Size("1 MB")``, ``Size("512 KiB")``, ``Size(4096)``.

    ``kB``, ``MB``, ``GB``, ``TB`` and ``PB`` count in thousands, as disks and networks do: ``1 MB`` is
    1000000 bytes. ``KiB``, ``MiB``, ``GiB``, ``TiB`` and ``PiB`` count in 1024s, as memory does: ``1 MiB``
    is 1048576 bytes. Upper and lower case and the space do not matter; a number alone, or with ``B``, is
    bytes. A letter alone (``10M``) is refused, because programs differ on whether it means 1000s or 1024s.
    A size is a whole number of bytes, not negative, and less than 2**63.

    ``Size(str(size)) == size`` holds for every size. Raises ValueError, which names the expected form, for
    everything else.
    """

    __slots__ = ()

    def __new__(cls, value: str | int = 0) -> Self:
        """Read text, or take a number of bytes."""
        count = _bytes(value) if isinstance(value, str) else value
        if not isinstance(count, int) or not 0 <= count < 2**63:
            raise ValueError(
                f"expected a size in whole bytes, such as 512 KiB (of 1024), 1 MB (of 1000) or 4096,"
                f" got {value_text(value)}"
            )
        return super().__new__(cls, count)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read text, as calling the class does; option types need the method by this name."""
        return cls(text)

    def __str__(self) -> str:
        """Return the shortest text with a unit that is exactly this size: ``1 MB``."""
        count = int(self)
        fitting = [(count // size, unit) for unit, size in _SIZES.items() if count and count % size == 0]
        number, unit = min(fitting, key=lambda fit: fit[0], default=(0, "B"))
        return f"{number} {unit}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


_LONGEST = 36500 * 86400
_MILLISECONDS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_UNIT_ORDER = list(_MILLISECONDS)
_DURATION_PART = re.compile(_NUMBER + r"\s*(ms|[dhms])\s*")
_BARE_NUMBER = re.compile(_NUMBER)

# Decimal and binary alternate, so that str() prefers the decimal unit of two equally short texts.
_SIZES = {"B": 1}
for _power, _letter in enumerate("kMGTP", start=1):
    _SIZES[f"{_letter}B"] = 1000**_power
    _SIZES[f"{_letter.upper()}iB"] = 1024**_power
_SIZE = re.compile(_NUMBER + r"\s*([a-z]*)")
_SIZES_BY_LOWER_CASE = {"": 1} | {unit.lower(): size for unit, size in _SIZES.items()}


def _seconds(text: str) -> float | None:
    """Return the seconds of a text, or None when it is not a duration."""
    text = text.strip()
    if bare := _BARE_NUMBER.fullmatch(text):
        return _exactly([(bare, 1000)])
    parts: list[tuple[re.Match[str], int]] = []
    units: list[str] = []
    at = 0
    while at < len(text):
        part = _DURATION_PART.match(text, at)
        if part is None:
            return None
        parts.append((part, _MILLISECONDS[part[3]]))
        units.append(part[3])
        at = part.end()
    ordered = [unit for unit in _UNIT_ORDER if unit in units]
    return _exactly(parts) if units and units == ordered else None


def _exactly(parts: list[tuple[re.Match[str], int]]) -> float:
    """Add up numbers of milliseconds in integers and divide once, which rounds once, correctly."""
    places = max(len(part[2] or "") for part, _ in parts)
    total = sum(_scaled(part, places) * unit for part, unit in parts)
    divisor: int = 1000 * 10**places
    return total / divisor


def _scaled(number: re.Match[str], places: int) -> int:
    return int(number[1] + (number[2] or "").ljust(places, "0"))


def _bytes(text: str) -> int | None:
    """Return the bytes of a text, or None when it is not a size or not a whole number of bytes."""
    match = _SIZE.fullmatch(text.strip().lower())
    unit = _SIZES_BY_LOWER_CASE.get(match[3]) if match else None
    if match is None or unit is None:
        return None
    places = len(match[2] or "")
    count, rest = divmod(_scaled(match, places) * unit, 10**places)
    return count if rest == 0 else None


def _decimals(number: float) -> tuple[int, str]:
    """Split a number into its whole part and the digits of its fraction, exactly as ``repr`` has them."""
    fraction, whole = math.modf(number)
    if fraction == 0:
        return int(whole), ""
    from decimal import Decimal  # the only way to write a small float without an exponent

    return int(whole), format(Decimal(repr(number)), "f").partition(".")[2]
