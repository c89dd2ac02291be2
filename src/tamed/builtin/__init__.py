"""The services that come with Tamed, as plugins."""

__all__: list[str] = []
