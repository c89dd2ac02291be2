"""SOCKS 4, 4a and 5: the messages, the rules about targets, and the proxy."""
