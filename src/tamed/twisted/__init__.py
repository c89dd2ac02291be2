"""The bridge to Twisted: its services in Tamed's applications, Tamed's under Twisted's, and its programs.

Importing this loads nothing of Twisted; that is loaded with the first name that needs it.
"""

from typing import TYPE_CHECKING

from tamed._lazy import lazy_face

if TYPE_CHECKING:
    from tamed.twisted._claim import claim_reactor, is_installed
    from tamed.twisted._effects import apply_twistd
    from tamed.twisted._options import check_options, make_plugin
    from tamed.twisted._plugins import FoundPlugin, all_plugins, has_plugin
    from tamed.twisted._program import as_service, explain_reactor
    from tamed.twisted._service import TwistedService
    from tamed.twisted._tamed_service import TamedServiceForTwisted
    from tamed.twisted._twistd import Twistd, parse_twistd

__all__ = [
    "FoundPlugin",
    "TamedServiceForTwisted",
    "Twistd",
    "TwistedService",
    "all_plugins",
    "apply_twistd",
    "as_service",
    "check_options",
    "claim_reactor",
    "explain_reactor",
    "has_plugin",
    "is_installed",
    "make_plugin",
    "parse_twistd",
]

if not TYPE_CHECKING:
    __getattr__ = lazy_face(
        __name__,
        {
            "FoundPlugin": "._plugins",
            "TamedServiceForTwisted": "._tamed_service",
            "Twistd": "._twistd",
            "TwistedService": "._service",
            "all_plugins": "._plugins",
            "apply_twistd": "._effects",
            "as_service": "._program",
            "check_options": "._options",
            "claim_reactor": "._claim",
            "explain_reactor": "._program",
            "has_plugin": "._plugins",
            "is_installed": "._claim",
            "make_plugin": "._options",
            "parse_twistd": "._twistd",
        },
    )


def __dir__() -> list[str]:
    return __all__
