"""All targets, one file for each group of parsers."""

from collections.abc import Iterator

from tests.fuzz import control, ftp, logs, messages, proxies, sessions, texts, web
from tests.fuzz.engine import Target

__all__ = ["target_named", "targets"]


def targets() -> Iterator[Target]:
    """Yield all of them."""
    for group in (texts, messages, logs, control, proxies, sessions, ftp, web):
        yield from group.TARGETS


def target_named(name: str) -> Target:
    """Return the one of a name. Raises SystemExit, which names all, if there is none."""
    for target in targets():
        if target.name == name:
            return target
    raise SystemExit(f"no target {name!r}: {', '.join(target.name for target in targets())}")
