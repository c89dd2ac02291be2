"""Puts manual pages and a software bill of materials into the wheel, made from the source of the build.

Neither has a date or a number of its own: the same source always makes the same wheel.
"""

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_LOCKED = re.compile(r"^([a-z0-9][a-z0-9.-]*)==([^\s;\\]+)", re.MULTILINE)


class GeneratedFiles(BuildHookInterface):  # type: ignore[type-arg]
    """The hook that hatchling calls before it builds a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the files, and tell the build where they belong."""
        root = Path(self.root)
        sys.path.insert(0, str(root / "src"))
        try:
            from tamed.cli.manual import write_pages
        finally:
            sys.path.pop(0)
        for page in write_pages(root / "build" / "man"):
            build_data["shared_data"][str(page)] = f"share/man/man{page.suffix[1:]}/{page.name}"
        if "sbom_files" not in build_data:  # Debian builds with an older hatchling
            return
        bill = root / "build" / "tamed.cdx.json"
        bill.write_text(json.dumps(bill_of_materials(root, self.metadata.version), indent=2) + "\n", "utf-8")
        build_data["sbom_files"].append(str(bill.relative_to(root)))


def bill_of_materials(root: Path, version: str) -> dict[str, Any]:
    """Return what the wheel needs (PEP 770, CycloneDX 1.6), in the versions that the project is tested with.

    The wheel contains no other project's code. What only an extra needs is optional.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    required = {re.split(r"[^\w-]", each, maxsplit=1)[0] for each in project["dependencies"]}
    locked: dict[str, str] = {}
    for extra in project["optional-dependencies"]:
        locked |= _LOCKED.findall((root / "requirements" / f"{extra}.txt").read_text("utf-8"))
    components = [
        {
            "type": "library",
            "bom-ref": f"pkg:pypi/{name}@{number}",
            "name": name,
            "version": number,
            "scope": "required" if name in required else "optional",
            "purl": f"pkg:pypi/{name}@{number}",
        }
        for name, number in sorted(locked.items())
    ]
    own = f"pkg:pypi/{project['name']}@{version}"
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "library",
                "bom-ref": own,
                "name": project["name"],
                "version": version,
                "licenses": [{"license": {"id": project["license"]}}],
                "purl": own,
            }
        },
        "components": components,
        "dependencies": [{"ref": own, "dependsOn": [each["bom-ref"] for each in components]}],
    }
