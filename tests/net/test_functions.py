"""What servers and clients call."""

from collections.abc import Callable
from typing import Any, cast

import pytest

from tamed.errors import ServiceMisuse
from tamed.net.client import ClientService
from tamed.net.datagram import DatagramServer
from tamed.net.stream import ProtocolServer, StreamServer
from tamed.service.service import Service


@pytest.mark.parametrize("make", [StreamServer, ProtocolServer, DatagramServer, ClientService])
def test_what_is_no_function_is_refused_at_once(make: Callable[[str, Any], Service]) -> None:
    """Not when the first client comes."""
    with pytest.raises(ServiceMisuse, match=r"Se\w+: the [a-z ]+ is a protocol, not a function; pass the"):
        make("localhost:1", cast(Any, Protocol()))


@pytest.mark.parametrize("make", [StreamServer, ProtocolServer, DatagramServer, ClientService])
@pytest.mark.parametrize(("value", "kind"), [(8080, "an int"), (None, "None"), ([80], "an int")])
def test_what_is_no_endpoint_is_refused(
    make: Callable[[Any, Any], Service], value: object, kind: str
) -> None:
    """A port alone is the usual one."""
    what = kind.replace("an int", "a list") if make is ClientService and isinstance(value, list) else kind
    with pytest.raises(ServiceMisuse, match=f"endpoint .*: it is {what}, not a text; write 'HOST:PORT'"):
        make(value, Protocol)


class Protocol:
    """An object in place of its class."""
