"""Files or a Python application over HTTP/1.1."""

from tamed.builtin.web._plugin import Options, web

__all__ = ["Options", "web"]
