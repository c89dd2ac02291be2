"""What a session may take, as options that every plugin with a prompt has."""

from dataclasses import dataclass

from tamed.plugins.option import option
from tamed.plugins.values import Duration, Size

__all__ = ["Limits"]


@dataclass
class Limits:
    """The limits of sessions."""

    max_sessions: int = option(10, "How many sessions there may be at once.")
    max_line: Size = option(Size("4 KiB"), "The longest line that is taken.")
    max_output: Size = option(Size("1 MB"), "The most that a line may print; what is beyond is cut.")
    line_timeout: Duration = option(Duration("10m"), "A line that runs for longer is interrupted.")
    login_timeout: Duration = option(Duration("1m"), "How long somebody may take to log in.")
    idle_timeout: Duration = option(
        Duration("1h"), "A session in which nothing is typed for longer is ended."
    )

    def __post_init__(self) -> None:
        if self.max_sessions < 1:
            raise ValueError(f"max-sessions must be at least 1, not {self.max_sessions}")
        if self.max_line < 1:
            raise ValueError("max-line must be at least 1 B")
