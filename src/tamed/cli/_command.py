"""What all commands have in common."""

from typing import Any

import click

__all__ = ["Command"]


class Command(click.Command):
    """A command that has ``-h`` too, is not squeezed into 80 columns, and knows its mistakes as its own."""

    def __init__(
        self, name: str | None, context_settings: dict[str, Any] | None = None, **attributes: Any
    ) -> None:
        ours = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
        super().__init__(name, context_settings={**ours, **(context_settings or {})}, **attributes)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse a command line; an error that does not say so is made to say which command it is of."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise
