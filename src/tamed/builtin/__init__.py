"""The services that come with Tamed, found as plugins like anyone's."""

__all__: list[str] = []
