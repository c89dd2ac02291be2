"""A plugin with secrets, for deployments that are exported."""

VAULT = """
from dataclasses import dataclass
from tamed import Service, option, plugin

@dataclass
class Options:
    password: str = option(secret=True)
    token: str = option("", secret=True)
    host: str = ""

@plugin
def vault(options: Options) -> Service:
    return Service("vault")
"""
