"""A Python prompt into the running process, for the plugins ``console`` and ``telnet``."""
