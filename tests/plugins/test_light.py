import sys

from tests.fresh import loaded_by


def test_importing_the_layer_is_cheap() -> None:
    """It loads no third-party package and no module that only errors need."""
    modules = loaded_by("import tamed.plugins.discovery, tamed.plugins.plugin")
    assert "uvloop" not in modules
    assert not modules & {"difflib", "decimal", "tomllib"}


def test_declaring_options_needs_no_third_party_package() -> None:
    """Importing a plugin's module does not load the readers of options."""
    modules = loaded_by(
        "from dataclasses import dataclass; from tamed.plugins.describe import describe\n"
        "from tamed import Duration, option, plugin\n"
        "@dataclass\nclass Options:\n    wait: Duration = option(Duration('30s'))\ndescribe(Options)"
    )
    assert {name.partition(".")[0] for name in modules} - sys.stdlib_module_names == {"tamed"}
    assert "importlib.metadata" not in modules
