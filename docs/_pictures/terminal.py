"""Makes the picture of a terminal from a session: ``python docs/_pictures/terminal.py``.

``session.txt`` has commands after ``$``, and what came of them when they were last recorded; ``--record``
runs them again, on the port that they name. A test follows the session, and compares the picture with it.
"""

import subprocess
import sys
from html import escape
from pathlib import Path

HERE = Path(__file__).parent
SESSION, PICTURE = HERE / "session.txt", HERE / "session.svg"

SIZE, CHARACTER, LINE, MARGIN = 14, 8.43, 20, 20  # pixels

STYLE = f"""
  text {{ font: {SIZE}px ui-monospace, Menlo, Consolas, monospace; white-space: pre; fill: #d6deeb; }}
  .prompt {{ fill: #7fdbca; }} .command {{ fill: #ffffff; font-weight: bold; }}
"""


def recorded(session: str) -> str:
    """Run the commands of a session, and return it with their output of now."""
    text = ""
    for line in session.splitlines():
        if line.startswith("$ "):
            done = subprocess.run(
                ["/bin/bash", "-c", line.removeprefix("$ ")],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            text += f"{line}\n{done.stdout}"
    return text


def drawn(session: str) -> str:
    """Return the picture of a session, as SVG."""
    lines = session.splitlines()
    width = round(2 * MARGIN + CHARACTER * max(map(len, lines)))
    height = 2 * MARGIN + LINE * len(lines)
    texts = "\n".join(_text(line, MARGIN + LINE * number + SIZE) for number, line in enumerate(lines))
    size = f'viewBox="0 0 {width} {height}" width="{width}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">\n'
        f"<title>A daemon is started, reloaded while clients connect, and stopped</title>\n"
        f"<style>{STYLE}</style>\n"
        f'<rect width="{width}" height="{height}" rx="8" fill="#011627"/>\n{texts}\n</svg>\n'
    )


def _text(line: str, y: int) -> str:
    if line.startswith("$ "):
        command = escape(line.removeprefix("$ "))
        shown = f'<tspan class="prompt">$ </tspan><tspan class="command">{command}</tspan>'
    else:
        shown = escape(line)
    return f'<text x="{MARGIN}" y="{y}">{shown}</text>'


if __name__ == "__main__":
    if sys.argv[1:] == ["--record"]:
        SESSION.write_text(recorded(SESSION.read_text("utf-8")), "utf-8")
    PICTURE.write_text(drawn(SESSION.read_text("utf-8")), "utf-8")
