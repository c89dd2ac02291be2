import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamed.errors import ConfigurationError, ExitStatus
from tamed.net.endpoint import (
    BadEndpoint,
    Endpoint,
    FdEndpoint,
    KeyPair,
    SystemdEndpoint,
    TcpEndpoint,
    TlsEndpoint,
    UnixEndpoint,
    address_text,
    as_endpoint,
)

CERT = Path("/etc/cert.pem")


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("localhost:10000", TcpEndpoint("localhost", 10000)),
        ("127.0.0.1:0", TcpEndpoint("127.0.0.1", 0)),
        (":65535", TcpEndpoint("", 65535)),
        ("[::1]:80", TcpEndpoint("::1", 80)),
        ("[fe80::1%eth0]:80", TcpEndpoint("fe80::1%eth0", 80)),
        ("tcp://unix:80", TcpEndpoint("unix", 80)),
        ("tls://:443?cert=/etc/cert.pem", TlsEndpoint("", 443, CERT)),
        ("tls://[::]:443?cert=/etc/cert.pem&key=k.pem", TlsEndpoint("::", 443, CERT, Path("k.pem"))),
        ("tls://a:1?cert=/etc/cert.pem&client_ca=ca", TlsEndpoint("a", 1, CERT, client_ca=Path("ca"))),
        ("unix:/run/x.sock", UnixEndpoint("/run/x.sock")),
        ("unix:/run/x.sock?mode=660", UnixEndpoint("/run/x.sock", 0o660)),
        ("unix:x.sock?mode=007", UnixEndpoint("x.sock", 0o007)),
        ("unix:@name", UnixEndpoint("@name")),
        ("unix:/what%3F%20%26%25", UnixEndpoint("/what? &%")),
        ("fd://3", FdEndpoint(3)),
        ("systemd://web.socket", SystemdEndpoint("web.socket")),
        ("systemd://", SystemdEndpoint()),
    ],
)
def test_canonical_texts(text: str, endpoint: Endpoint) -> None:
    """A canonical text and its value stand for each other."""
    assert Endpoint.parse(text) == endpoint
    assert str(endpoint) == text


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("tcp://localhost:80", "localhost:80"),
        ("LocalHost:080", "localhost:80"),
        ("[0:0:0::1]:80", "[::1]:80"),
        ("unix:///run/x.sock", "unix:/run/x.sock"),
        ("unix:/x?mode=0660", "unix:/x?mode=660"),
        ("unix:/x?mode=7", "unix:/x?mode=007"),
        ("fd://03", "fd://3"),
        ("tls://a:1?key=k&cert=c", "tls://a:1?cert=c&key=k"),
        (
            "tls://a:1?unknown_name=refuse&cert=c&client_ca=a&verify_client=optional&cert=d&key=k",
            "tls://a:1?cert=c&cert=d&key=k&client_ca=a&verify_client=optional&unknown_name=refuse",
        ),
    ],
)
def test_other_spellings(text: str, canonical: str) -> None:
    """Other ways to write an endpoint are read, and written in the one way."""
    assert str(Endpoint.parse(text)) == canonical


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no port: expected HOST:PORT, :PORT, [IPV6]:PORT, tcp://, tls://, unix:, fd:// or systemd://"),
        ("localhost", "no port: expected HOST:PORT"),
        ("localhost:", "no port: expected HOST:PORT"),
        ("[::1]", "no port: expected HOST:PORT"),
        ("10000", "a port alone: expected HOST:PORT, or :10000 for every interface"),
        ("*:80", "every interface is written :80"),
        ("*:", "every interface is written :PORT"),
        ("localhost:http", "port 'http' is not a number: expected 0 to 65535"),
        ("localhost:-1", "port '-1' is not a number: expected 0 to 65535"),
        ("localhost:65536", "port 65536 is out of range: expected 0 to 65535"),
        ("localhost:\u0663", "is not a number"),
        ("::1:80", "an IPv6 address needs brackets: expected [::1]:80"),
        ("::1", "an IPv6 address needs brackets: expected [::1]:PORT"),
        ("a:b:80", "more than one colon"),
        ("[::1:80", "more than one colon"),
        ("[localhost]:80", "brackets are for IPv6 addresses, and 'localhost' is not one"),
        ("[::g]:80", "'::g' is not an IPv6 address"),
        ("[fe80::1%a b]:80", "is not an IPv6 address"),
        ("80:80", "'80' is not an IPv4 address"),
        ("127.0.0.256:80", "'127.0.0.256' is not an IPv4 address"),
        ("a b:80", "'a b' is not a host name: expected letters, digits, '-' and '.'"),
        ("-a:80", "is not a host name"),
        ("a..b:80", "is not a host name"),
        (f"{'a' * 64}:80", "is not a host name"),
        ("\u212aelvin:80", "is not a host name"),
        ("localhost:80?cert=x", "no settings here: only tls:// and unix: take them"),
        ("fd:3", "expected fd://; a host of that name is written tcp://fd:3"),
        ("http://localhost:80", "unknown scheme 'http'; expected HOST:PORT"),
        ("tlss://localhost:80", "unknown scheme 'tlss', did you mean 'tls'?"),
        ("TLS://localhost:80", "did you mean 'tls'?"),
        ("tcp://localhost", "no port"),
        ("tls://localhost:443", "no certificate: expected tls://HOST:PORT?cert=FILE"),
        (
            "tls://localhost:443?crt=x",
            "unknown setting 'crt', did you mean 'cert'?; tls:// takes cert, key, ",
        ),
        ("tls://localhost:443?cert=", "cert has no value"),
        ("tls://localhost:443?key=a", "no certificate: expected tls://HOST:PORT?cert=FILE"),
        ("tls://localhost:443?cert=a&key=b&key=c", "key is given twice for one certificate"),
        ("tls://localhost:443?cert=a&client_ca=b&client_ca=c", "client_ca is given twice"),
        (
            "tls://localhost:443?cert=a&verify_client=optional",
            "verify_client without client_ca: add client_ca",
        ),
        ("tls://localhost:443?cert=a&unknown_name=no", "unknown_name is default or refuse, not 'no'"),
        ("tls://localhost:443?cert=%zz", "a % must be followed by two hexadecimal digits"),
        ("tls://localhost:443?cert=%00", "cert contains a zero byte"),
        ("unix:", "no path: expected unix:/run/NAME.sock"),
        ("unix:@", "no path"),
        ("unix://run/x.sock", "expected unix:/PATH for an absolute path, or unix:PATH"),
        ("unix:/x?mode=rw", "mode 'rw' is not octal: expected three digits from 0 to 7, such as 660"),
        ("unix:/x?mode=680", "is not octal"),
        ("unix:/x?mode=1777", "mode 1777 is out of range: expected 0 to 777"),
        ("unix:/x?moed=660", "unknown setting 'moed', did you mean 'mode'?"),
        ("unix:@x?mode=660", "an abstract socket has no file, so it has no mode"),
        ("unix:/x%00", "the path contains a zero byte"),
        ("unix:/\ud800", "the path cannot be written as UTF-8"),
        ("fd://", "expected the number of a descriptor, such as fd://3"),
        ("fd://stdin", "expected the number of a descriptor"),
        ("fd://9999999999", "9999999999 is not a file descriptor"),
        ("systemd://a:b", "a systemd socket name is printable ASCII without a colon"),
        ("systemd://a?b", "no settings here"),
    ],
)
def test_bad_texts_say_what_was_expected(text: str, said: str) -> None:
    """A text that is no endpoint is shown with what was wrong and what was expected, on one line."""
    with pytest.raises(BadEndpoint) as caught:
        Endpoint.parse(text)
    assert said in caught.value.why
    assert str(caught.value) == f"{text!r}: {caught.value.why}"
    assert len(str(caught.value).splitlines()) == 1


def test_a_kind_reads_itself_only() -> None:
    """A kind's own ``parse`` refuses the other kinds, so that it can be the type of an option."""
    assert TcpEndpoint.parse(":80").port == 80
    with pytest.raises(ValueError, match="expected a TcpEndpoint, got a UnixEndpoint"):
        TcpEndpoint.parse("unix:/x")


def test_endpoints_are_values() -> None:
    """Endpoints are immutable, equal by value, hashable, and survive pickling."""
    endpoint = Endpoint.parse("unix:/run/x.sock?mode=660")
    assert {endpoint: 1}[UnixEndpoint("/run/x.sock", 0o660)] == 1
    for each in (endpoint, TcpEndpoint("a", 1), Endpoint.parse("tls://a:1?cert=c"), FdEndpoint(3)):
        assert pickle.loads(pickle.dumps(each)) == each
    assert endpoint != UnixEndpoint("/run/x.sock")
    with pytest.raises(AttributeError):
        endpoint.mode = 0
    with pytest.raises(AttributeError):
        delattr(endpoint, "mode")


@pytest.mark.parametrize(
    ("text", "moved"),
    [
        ("unix:x.sock?mode=660", "unix:/folder/x.sock?mode=660"),
        ("unix:/run/x.sock", "unix:/run/x.sock"),
        ("unix:@name", "unix:@name"),
        ("unix:./@name", "unix:/folder/@name"),
        ("tls://:443?cert=c&key=/k&client_ca=a", "tls://:443?cert=/folder/c&key=/k&client_ca=/folder/a"),
        ("tls://:443?cert=c", "tls://:443?cert=/folder/c"),
        ("tls://:443?cert=c&cert=d&key=e", "tls://:443?cert=/folder/c&cert=/folder/d&key=/folder/e"),
        ("localhost:80", "localhost:80"),
        ("fd://3", "fd://3"),
        ("systemd://verse", "systemd://verse"),
    ],
)
def test_relative_paths_can_start_at_a_folder(text: str, moved: str) -> None:
    """Those of an endpoint in a deployment file start beside the file; nothing else changes."""
    endpoint = Endpoint.parse(text).relative_to(Path("/folder"))
    assert str(endpoint) == moved
    assert endpoint == Endpoint.parse(moved)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (TcpEndpoint, ("a b", 80)),
        (TcpEndpoint, ("a", 65536)),
        (TlsEndpoint, ("a", -1, CERT)),
        (UnixEndpoint, ("",)),
        (UnixEndpoint, ("/x", 0o1000)),
        (FdEndpoint, (-1,)),
        (SystemdEndpoint, ("\n",)),
    ],
)
def test_constructors_refuse_what_no_text_stands_for(
    kind: Callable[..., Endpoint], values: tuple[object, ...]
) -> None:
    """An endpoint that could not be written down cannot be made."""
    with pytest.raises(ValueError, match=r"expected|printable"):
        kind(*values)


def test_as_endpoint_takes_both() -> None:
    """A program may give an endpoint or its text; a bad text is a configuration error."""
    endpoint = TcpEndpoint("localhost", 80)
    assert as_endpoint(endpoint) is endpoint
    assert as_endpoint("localhost:80") == endpoint
    with pytest.raises(ConfigurationError) as caught:
        as_endpoint("localhost")
    assert str(caught.value).startswith("endpoint 'localhost': no port: expected HOST:PORT")
    assert caught.value.status == ExitStatus.CONFIGURATION


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (("127.0.0.1", 80), "127.0.0.1:80"),
        (("::1", 80, 0, 0), "[::1]:80"),
        (("fe80::1%eth0", 80, 0, 2), "[fe80::1%eth0]:80"),
        ("/run/x.sock", "unix:/run/x.sock"),
        ("/run/a b", "unix:/run/a%20b"),
        (b"\0name", "unix:@name"),
        ("", "unix:"),
        (None, "None"),
    ],
)
def test_addresses_as_text(address: object, text: str) -> None:
    """What the operating system calls an address is written as one would type it."""
    assert address_text(address) == text


names = st.from_regex(
    r"[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,20}[a-zA-Z0-9_])?(\.[a-z]{1,10}){0,3}\.?", fullmatch=True
)
hosts = st.one_of(
    st.just(""),
    st.sampled_from(["unix", "tcp", "tls", "fd", "systemd", "localhost"]),
    names.filter(lambda name: not set(name) <= set("0123456789.")),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.ip_addresses(v=6).map("{}%eth0".format),
)
ports = st.integers(0, 65535)
# Any bytes but zero, the way that Python shows undecodable ones.
file_names = st.binary(min_size=1).map(
    lambda name: name.replace(b"\0", b"0").decode("utf-8", "surrogateescape")
)
files = file_names.map(Path)
modes = st.none() | st.integers(0, 0o777)
endpoints = st.one_of(
    st.builds(TcpEndpoint, hosts, ports),
    st.builds(TlsEndpoint, hosts, ports, files, st.none() | files, st.none() | files),
    st.builds(
        TlsEndpoint,
        hosts,
        ports,
        files,
        more=st.lists(st.builds(KeyPair, files, st.none() | files), max_size=2).map(tuple),
        unknown_name=st.sampled_from(["default", "refuse"]),
    ),
    st.builds(UnixEndpoint, file_names.filter(lambda name: not name.startswith("@")), modes),
    st.builds(UnixEndpoint, file_names.map("@{}".format)),
    st.builds(FdEndpoint, st.integers(0, 2**31 - 1)),
    st.builds(
        SystemdEndpoint,
        st.text(st.characters(min_codepoint=32, max_codepoint=126)).map(lambda name: name.replace(":", "")),
    ),
)


@given(endpoints)
def test_every_endpoint_round_trips(endpoint: Endpoint) -> None:
    """``parse(str(endpoint))`` is the endpoint, for every kind; its text is printable ASCII."""
    text = str(endpoint)
    assert Endpoint.parse(text) == endpoint
    assert text.isascii()
    assert text.isprintable()


parts = [
    "://",
    ":",
    "?",
    "&",
    "=",
    "%",
    "[",
    "]",
    "@",
    "/",
    "//",
    "tls",
    "unix",
    "fd",
    "systemd",
    "cert=x",
    "mode=",
    "80",
]


@given(st.one_of(st.text(), st.lists(st.sampled_from(parts) | st.text(max_size=3)).map("".join)))
def test_any_text_is_an_endpoint_or_a_value_error(text: str) -> None:
    """Whatever the text, it is an endpoint whose own text means the same, or a ``BadEndpoint``."""
    try:
        endpoint = Endpoint.parse(text)
    except BadEndpoint:
        return
    assert Endpoint.parse(str(endpoint)) == endpoint
