"""SOCKS: the messages, the rules about targets, and the service."""

from tamed.builtin._socks._proxy import Limits, Proxy
from tamed.builtin._socks._rules import TargetRules
from tamed.builtin._socks._target import TargetPattern

__all__ = ["Limits", "Proxy", "TargetPattern", "TargetRules"]
