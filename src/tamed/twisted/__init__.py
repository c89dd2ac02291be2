"""The bridge to Twisted: its services in Tamed's applications, Tamed's under Twisted's, and its programs.

Importing this loads nothing of Twisted; that is loaded with the first name that needs it.
"""

from typing import TYPE_CHECKING

from tamed._lazy import lazy_face

if TYPE_CHECKING:
    from tamed.twisted._claim import claim_reactor
    from tamed.twisted._service import TwistedService
    from tamed.twisted._tamed_service import TamedServiceForTwisted

__all__ = ["TamedServiceForTwisted", "TwistedService", "claim_reactor"]

if not TYPE_CHECKING:
    __getattr__ = lazy_face(
        __name__,
        {
            "TamedServiceForTwisted": "._tamed_service",
            "TwistedService": "._service",
            "claim_reactor": "._claim",
        },
    )


def __dir__() -> list[str]:
    return __all__
