"""Sphinx's settings for this site. It is built with warnings as errors: `make docs`."""

import os
import re
import sys
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.typing import stringify_annotation

import tamed
from tamed.net.listen import Endpoints
from tamed.service.group import Strategy
from tamed.service.role import Scope
from tamed.web.asgi import ASGIApplication

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
# Long types by their names; in the text of a signature a type is written in the smart mode.
ALIASES = {
    stringify_annotation(alias, "smart"): name
    for alias, name in {
        ASGIApplication: "ASGIApplication",
        Endpoints: "Endpoints",
        Scope: "Scope",
        Strategy: "Strategy",
    }.items()
}

html_theme = "furo"
html_logo = html_favicon = "_static/logo.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_search_scorer = str(Path(__file__).parent / "_static" / "scorer.js")
html_extra_path = ["llms.txt"]
html_title = f"Tamed {release}"
html_copy_source = False
html_show_sphinx = False


def _require_no_objects(app: Sphinx, _error: Exception | None) -> None:
    """Warn of a page that shows what an object holds on this machine, or the environment of who built it."""
    forbidden = ("&lt;function", " at 0x", " object&gt;", "*_args", "**_options", os.environ["PATH"])
    for page in Path(app.outdir).rglob("*.html"):
        text = re.sub("<[^>]*>", "", page.read_text("utf-8"))
        for found in filter(text.__contains__, forbidden):
            logger.warning("%s shows %s", page, found)


def _require_public_names(app: Sphinx, _error: Exception | None) -> None:
    """Warn of a name that programs import, and that the reference does not describe under that name."""
    described = app.env.domains.python_domain.objects
    for name in sorted(
        {f"tamed.{name}" for name in tamed.__all__} - {"tamed.__version__"} - described.keys()
    ):
        logger.warning("no page describes %s", name)


def _as_written(
    _app: Sphinx,
    _what: str,
    _name: str,
    described: Any,
    _options: object,
    signature: str | None,
    returns: str | None,
) -> tuple[str | None, str | None]:
    """Show an alias by its name, and a protocol, which nobody calls, without a signature."""
    if getattr(described, "_is_protocol", False):
        return "", None
    for alias, name in ALIASES.items():
        signature = signature and signature.replace(alias, name)
    return signature, returns


def _public_bases(_app: Sphinx, _name: str, _class: object, _options: object, bases: list[Any]) -> None:
    """Show what a base class that nobody imports is made of in its place."""
    for base in [base for base in bases if getattr(base, "__name__", "").startswith("_")]:
        place = bases.index(base)
        bases[place : place + 1] = base.__bases__


def setup(app: Sphinx) -> None:
    """Check what is published."""
    app.connect("autodoc-process-bases", _public_bases)
    app.connect("autodoc-process-signature", _as_written)
    app.connect("build-finished", _require_no_objects)
    app.connect("build-finished", _require_public_names)
