"""Forwarding connections: the PROXY protocol, the upstreams, and the service."""

from tamed.builtin._portforward._forwarder import Forwarder, ProxyHeader
from tamed.builtin._portforward._network import Network
from tamed.builtin._portforward._tls import ClientTls
from tamed.builtin._portforward._upstream import Upstream

__all__ = ["ClientTls", "Forwarder", "Network", "ProxyHeader", "Upstream"]
