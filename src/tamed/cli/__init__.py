"""The command ``tamed``: the only place that prints or exits."""

from tamed.cli._main import main

__all__ = ["main"]
