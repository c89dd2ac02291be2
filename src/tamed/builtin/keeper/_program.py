"""A program: what is to be run, as whom, where and within which limits, as plain data."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

__all__ = ["Identity", "Program"]


class Identity(NamedTuple):
    """A user, a group and the supplementary groups, by number, with the user's name for messages."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str


class Program(NamedTuple):
    """What a keeper has to know to run a program and to end it.

    ``command`` is the program, which is looked for in the ``PATH`` of ``environment`` if it has no slash,
    and its arguments. ``directory`` "" and ``umask`` and ``identity`` None leave things as they are in
    Tamed. ``no_new_privileges`` is that of prctl(2). ``limits`` are soft and hard limits by the names of
    getrlimit(2) in lower case: ``nofile``.
    ``stop_signal`` asks it to end, and ``stop_timeout`` is how many seconds it has before it is killed.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    directory: str = ""
    umask: int | None = None
    identity: Identity | None = None
    no_new_privileges: bool = False
    limits: Mapping[str, int] = {}
    stop_signal: int = 15
    stop_timeout: float = 10.0

    def encode(self) -> bytes:
        """Write it on one line."""
        return json.dumps(self._asdict()).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Self:
        """Read what ``encode`` wrote."""
        fields: dict[str, Any] = json.loads(line)
        identity = fields.pop("identity")
        return cls(
            tuple(fields.pop("command")),
            identity=None
            if identity is None
            else Identity(identity[0], identity[1], tuple(identity[2]), identity[3]),
            **fields,
        )
