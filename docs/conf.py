"""Sphinx's settings for this site. It is built with warnings as errors: `make docs`."""

import os
import re
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util import logging

sys.path.insert(0, str(Path(__file__).parent / "_pictures"))

logger = logging.getLogger(__name__)

project = "Tamed"
author = "Tamed contributors"
copyright = f"2026, {author}"
version = release = installed_version("tamed")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton", "diagram"]
exclude_patterns = ["_bench", "_build", "_pictures"]  # what is in _bench is included by a page
default_role = "literal"  # a name in single backticks, as our docstrings have them

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True  # as they are written: an object would show what it holds on this machine
autodoc_default_options = {"members": True, "show-inheritance": True}
python_use_unqualified_type_names = True

copybutton_prompt_text = "$ "  # only commands are copied, without it
html_theme = "furo"
html_logo = html_favicon = "_static/logo.svg"
html_extra_path = ["llms.txt"]
html_title = f"Tamed {release}"
html_copy_source = False
html_show_sphinx = False


def _require_no_objects(app: Sphinx, _error: Exception | None) -> None:
    """Warn of a page that shows what an object holds on this machine, or the environment of who built it."""
    forbidden = ("&lt;function", " at 0x", os.environ["PATH"])
    for page in Path(app.outdir).rglob("*.html"):
        text = re.sub("<[^>]*>", "", page.read_text("utf-8"))
        for found in filter(text.__contains__, forbidden):
            logger.warning("%s shows %s", page, found)


def setup(app: Sphinx) -> None:
    """Check what is published."""
    app.connect("build-finished", _require_no_objects)
