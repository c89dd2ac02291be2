"""Puts the manual pages into the wheel, made from the source that it is built from."""

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ManualPages(BuildHookInterface):  # type: ignore[type-arg]
    """The hook that hatchling calls before it builds a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the pages, and tell the build where they belong."""
        sys.path.insert(0, str(Path(self.root, "src")))
        try:
            from tamed.cli.manual import write_pages
        finally:
            sys.path.pop(0)
        for page in write_pages(Path(self.root, "build", "man")):
            build_data["shared_data"][str(page)] = f"share/man/man{page.suffix[1:]}/{page.name}"
