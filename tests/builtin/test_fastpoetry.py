from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamed.builtin.fastpoetry import Options, PoemAt, fastpoetry
from tamed.builtin.poetryproxy import poetryproxy
from tamed.errors import TamedError
from tamed.net.endpoint import Endpoint, TcpEndpoint
from tamed.plugins.build import Given
from tamed.plugins.plugin import Plugin
from tamed.testing.process import StartProcess
from tamed.testing.running import StartService
from tests.process.clients import SHIPPED, dial, fetch
from tests.process.conftest import LISTENING, READY
from tests.structure.source import ROOT

SCIENCE = b"Science! true daughter of Old Time thou art!\n"


@pytest.fixture
def science(tmp_path: Path) -> Path:
    """Write another poem."""
    file = tmp_path / "science.txt"
    file.write_bytes(SCIENCE)
    return file


def test_one_poem_is_served_on_several_endpoints(tamed_service: StartService, tmp_path: Path) -> None:
    """By one server."""
    endpoints = [Endpoint.parse("127.0.0.1:10000"), Endpoint.parse(f"unix:{tmp_path}/verse.sock")]
    poetry = tamed_service(fastpoetry(Options(listen=endpoints)))
    for address in poetry.addresses:
        assert fetch(address) == SHIPPED


def test_a_second_poem_has_a_port_of_its_own(tamed_service: StartService, science: Path) -> None:
    """Each in a multi-service of its own, named after its file."""
    poetry = tamed_service(fastpoetry(Options(iface="127.0.0.1", poem2=science, port2=10001)))
    assert poetry.fetch("ecstasy/server") == SHIPPED
    assert poetry.fetch("science/server") == SCIENCE


def test_any_number_of_poems_is_served_where_each_says(tamed_service: StartService, science: Path) -> None:
    """Also one poem in two places."""
    serve = [PoemAt.parse(f"{science}=localhost:{port}") for port in (1, 2, 3)]
    poetry = tamed_service(fastpoetry(Options(serve=serve)))
    names = ["science", "science-2", "science-3"]
    assert [poetry.fetch(f"{name}/server") for name in names] == [SCIENCE] * 3


def test_the_process_serves_two_poems(tamed_process: StartProcess, science: Path) -> None:
    """By both forms, with paths and endpoints as one types them."""
    second = ("--iface", "127.0.0.1", "--port", "0", "--poem2", "science.txt", "--port2", "0")
    poetry = tamed_process("run", "fastpoetry", *second)
    assert [fetch(poetry.expect(LISTENING)[1]) for _ in range(2)] == [SHIPPED, SCIENCE]
    serve = ("--serve", "science.txt=127.0.0.1:0", "--serve", "science.txt=unix:verse.sock")
    poetry = tamed_process("run", "fastpoetry", *serve)
    address = poetry.expect(LISTENING)[1]
    assert fetch(address) == SCIENCE
    poetry.expect(READY)
    assert fetch(f"unix:{science.parent}/verse.sock") == SCIENCE


def test_paths_in_a_deployment_file_start_at_its_folder() -> None:
    """Those of the poem and those in the endpoint."""
    table = {"serve": ["a.txt=localhost:1", "b.txt=unix:b.sock"]}
    service = fastpoetry.make(Given(table=table, file="verse.toml", file_folder=Path("/verse")))
    summaries = [found.summary for found in service.walk() if found.summary]
    assert summaries == ["localhost:1", "unix:/verse/b.sock"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"poem2": Path("a")}, "poem2 and port2 go together: use both or neither"),
        ({"port2": 1}, "poem2 and port2 go together: use both or neither"),
        ({"poem2": Path("a"), "port2": 65536}, "port 65536 is out of range: expected 0 to 65535"),
        ({"serve": ["a=:1"], "port": 1}, "serve and port exclude each other"),
        ({"serve": ["a=:1"], "poem": Path("a")}, "serve and poem exclude each other"),
        ({"serve": ["a=:1"], "listen": [TcpEndpoint("", 1)]}, "serve and listen exclude each other"),
    ],
)
def test_options_that_contradict_each_other_are_refused(given: dict[str, Any], says: str) -> None:
    """Rather than one of them being passed over in silence."""
    serve = [PoemAt.parse(text) for text in given.pop("serve", [])]
    with pytest.raises(ValueError, match=says):
        Options(serve=serve, **given)


@pytest.mark.parametrize("text", ["", "=", "a.txt", "a.txt=", "=:1", "a.txt=localhost", "a\0b=:1"])
def test_what_is_no_poem_and_endpoint_is_refused(text: str) -> None:
    """With what was expected."""
    with pytest.raises(ValueError, match=r"expected .*:10000|expected HOST:PORT"):
        PoemAt.parse(text)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    """The written form of a value is read as the same value."""
    try:
        read = PoemAt.parse(text)
    except ValueError:
        return
    assert PoemAt.parse(str(read)) == read


def test_an_endpoint_may_have_settings() -> None:
    """The first equals sign ends the name of the poem."""
    read = PoemAt.parse("a.txt=tls://localhost:1?cert=c.pem&key=k.pem")
    assert str(read) == "a.txt=tls://localhost:1?cert=c.pem&key=k.pem"
    assert str(read.relative_to(Path("/v"))) == "/v/a.txt=tls://localhost:1?cert=/v/c.pem&key=/v/k.pem"


def test_no_limit_of_connections_is_none_at_all() -> None:
    """A limit is at least one."""
    table = {"max-connections": 0}
    with pytest.raises(TamedError, match="max-connections: expected a whole number, at least 1"):
        fastpoetry.make(Given(table=table, file="verse.toml"))


def test_a_client_that_does_not_read_is_cut(tamed_process: StartProcess, tmp_path: Path) -> None:
    """After the time that it has."""
    (tmp_path / "long.txt").write_bytes(SCIENCE * 500_000)
    options = ("--port", "0", "--poem", "long.txt", "--send-timeout", "50ms")
    poetry = tamed_process("run", "fastpoetry", *options)
    with dial(poetry.expect(LISTENING)[1]):
        poetry.expect(r"aborted 127.0.0.1:\d+, which accepted no data for 0.05 s")


@pytest.mark.parametrize("plugin", [fastpoetry, poetryproxy], ids=lambda plugin: str(plugin.name))
def test_every_option_is_on_the_page(plugin: Plugin[Any]) -> None:
    """In the table of its plugin."""
    page = (ROOT / "docs" / "builtin" / "poetry.md").read_text("utf-8")
    table = page.partition(f"\n## {plugin.name}\n")[2].partition("\n## ")[0]
    assert [option.flag for option in plugin.describe() if f"`{option.flag}" not in table] == []
