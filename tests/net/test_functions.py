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


class Protocol:
    """An object in place of its class."""
