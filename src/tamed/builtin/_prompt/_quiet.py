"""What libraries tell."""

import logging

__all__ = ["quieten"]


def quieten(logger: str, level: int) -> None:
    """Let a library's logger tell nothing below a level, unless somebody has set one."""
    log = logging.getLogger(logger)
    if log.level == logging.NOTSET:
        log.setLevel(level)
