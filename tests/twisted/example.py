"""The example's two programs, put where a test can run them."""

import shutil
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "twisted"


def write_application(folder: Path, port: int = 0) -> Path:
    """Write the application file, with the poem of the folder and another port; return its path."""
    text = (EXAMPLE / "fastpoetry.tac").read_text()
    text = text.replace("PORT = 10000", f"PORT = {port}")
    text = text.replace(
        'Path(__file__).parent.parent / "poetry" / "ecstasy.txt"', f"Path({str(folder / 'poem.txt')!r})"
    )
    file = folder / "fastpoetry.tac"
    file.write_text(text)
    return file


def write_plugin(folder: Path) -> Path:
    """Copy the plugin into ``twisted/plugins`` below a folder; return that folder."""
    shutil.copytree(EXAMPLE / "twisted", folder / "twisted")
    return folder
