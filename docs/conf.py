"""Sphinx's settings for this site. It is built with warnings as errors: `make docs`."""

from importlib.metadata import version as installed_version

project = "Tamed"
author = "Tamed contributors"
copyright = f"2026, {author}"
version = release = installed_version("tamed")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_bench", "_build", "_pictures"]  # what is in _bench is included by a page
default_role = "literal"  # a name in single backticks, as our docstrings have them

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = f"Tamed {release}"
html_copy_source = False
html_show_sphinx = False
