"""``tamed completion``."""

import click
from click.shell_completion import get_completion_class

from tamed.cli._command import Command

__all__ = ["completion"]

_HELP = """Print what makes a shell complete commands, options, plugins and targets.

SHELL is bash, zsh or fish.

\b
Examples:
  eval "$(tamed completion bash)"    in ~/.bashrc
  eval "$(tamed completion zsh)"     in ~/.zshrc
  tamed completion fish > ~/.config/fish/completions/tamed.fish
"""


@click.command(cls=Command, help=_HELP)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]), metavar="SHELL")
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell."""
    script = get_completion_class(shell)
    assert script is not None
    click.echo(script(ctx.find_root().command, {}, "tamed", "_TAMED_COMPLETE").source())
