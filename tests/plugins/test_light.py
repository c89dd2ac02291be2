import json
import subprocess
import sys


def loaded(statement: str) -> set[str]:
    """Return the top-level names of all modules that a statement loads in a new process."""
    script = f"import json, sys; {statement}; print(json.dumps(list(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(run.stdout))


def test_importing_the_layer_is_cheap() -> None:
    """It loads no third-party package and nothing that only error messages need."""
    modules = loaded("import tamed.plugins")
    assert not modules & {"msgspec", "click", "uvloop"}
    assert not modules & {"difflib", "decimal", "tomllib"}


def test_declaring_options_needs_no_third_party_package() -> None:
    """A module with a plugin is imported without what converts its options."""
    modules = loaded(
        "from dataclasses import dataclass; from tamed.plugins import Duration, describe, option, plugin\n"
        "@dataclass\nclass Options:\n    wait: Duration = option(Duration('30s'))\ndescribe(Options)"
    )
    assert "msgspec" not in modules
    assert "importlib.metadata" not in modules
