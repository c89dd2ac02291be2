"""Forwarding of connections: the PROXY protocol, and the upstreams."""
