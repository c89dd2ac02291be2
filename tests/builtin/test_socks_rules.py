import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamed.builtin._socks.rules import TargetPattern, TargetRules


def judged(name: str, address: str, port: int, allow: list[str], deny: list[str]) -> str:
    """Judge a target as the proxy does: its name first, and then an address that it has."""
    rules = TargetRules(*([TargetPattern.parse(text) for text in texts] for texts in (allow, deny)))
    return rules.refusal_of_name(name, port) or rules.refusal(name, address, port)


SELF, LINK, CLOUD, MANY = "this machine itself", "link-local", "cloud metadata", "multicast or broadcast"

Attempt = tuple[str, str, int, list[str], list[str], str]

ATTEMPTS: list[Attempt] = [
    # name, address, port, allow, deny, refusal
    ("example.org", "93.184.216.34", 80, [], [], ""),
    ("10.1.2.3", "10.1.2.3", 80, [], [], ""),
    ("2001:db8::1", "2001:db8::1", 80, [], [], ""),
    # What is refused by itself, by its address or by a name that has this address.
    ("127.0.0.1", "127.0.0.1", 80, [], [], SELF),
    ("localhost", "127.0.0.1", 80, [], [], SELF),
    ("localhost", "::1", 80, [], [], SELF),
    ("rebound.example.org", "127.8.8.8", 80, [], [], SELF),
    ("0.0.0.0", "0.0.0.0", 80, [], [], SELF),
    ("::", "::", 80, [], [], SELF),
    ("169.254.169.254", "169.254.169.254", 80, [], [], LINK),
    ("rebound.example.org", "169.254.169.254", 80, [], [], LINK),
    ("fe80::1", "fe80::1%eth0", 80, [], [], LINK),
    ("fd00:ec2::254", "fd00:ec2::254", 80, [], [], CLOUD),
    ("fd20:ce::254", "fd20:ce::254", 80, [], [], CLOUD),
    ("100.100.100.200", "100.100.100.200", 80, [], [], CLOUD),
    ("168.63.129.16", "168.63.129.16", 80, [], [], CLOUD),
    ("metadata.google.internal", "203.0.113.1", 80, [], [], CLOUD),
    ("metadata", "203.0.113.1", 80, [], [], CLOUD),
    ("224.0.0.1", "224.0.0.1", 5353, [], [], MANY),
    ("ff02::1", "ff02::1", 5353, [], [], MANY),
    ("255.255.255.255", "255.255.255.255", 67, [], [], MANY),
    # An IPv4 address in IPv6's clothes.
    ("::ffff:127.0.0.1", "::ffff:127.0.0.1", 80, [], [], SELF),
    ("::ffff:169.254.169.254", "::ffff:a9fe:a9fe", 80, [], [], LINK),
    ("64:ff9b::a9fe:a9fe", "64:ff9b::a9fe:a9fe", 80, [], [], LINK),
    ("64:ff9b:1::7f00:1", "64:ff9b:1::7f00:1", 80, [], [], SELF),
    ("64:ff9b:1:7f00:0:100::", "64:ff9b:1:7f00:0:100::", 80, [], [], SELF),
    ("64:ff9b:1:a9:fe:a9fe::", "64:ff9b:1:a9:fe:a9fe::", 80, [], [], LINK),
    ("64:ff9b:1:0:7f:0:100:0", "64:ff9b:1:0:7f:0:100:0", 80, [], [], SELF),
    ("64:ff9b:1::cb00:7101", "64:ff9b:1::cb00:7101", 80, [], [], ""),
    ("::ffff:0:127.0.0.1", "::ffff:0:7f00:1", 80, [], [], SELF),
    ("2002:7f00:1::", "2002:7f00:1::", 80, [], [], SELF),
    ("::127.0.0.1", "::7f00:1", 80, [], [], SELF),
    # What lifts that: only a network within the refused one, or the very name.
    ("localhost", "127.0.0.1", 80, ["127.0.0.0/8"], [], ""),
    ("localhost", "127.0.0.1", 80, ["127.0.0.1:80"], [], ""),
    ("localhost", "127.0.0.1", 81, ["127.0.0.1:80"], [], SELF),
    ("::ffff:127.0.0.1", "::ffff:127.0.0.1", 80, ["127.0.0.1"], [], ""),
    ("localhost", "127.0.0.1", 80, ["*"], [], SELF),
    ("localhost", "127.0.0.1", 80, ["localhost"], [], SELF),
    ("localhost", "127.0.0.1", 80, ["0.0.0.0/0"], [], SELF),
    ("169.254.169.254", "169.254.169.254", 80, ["0.0.0.0/0", "*", "128.0.0.0/1"], [], LINK),
    ("169.254.169.254", "169.254.169.254", 80, ["169.254.169.254:80"], [], ""),
    ("169.254.169.254", "169.254.169.254", 80, ["169.254.169.254"], ["169.0.0.0/8"], "denied by 169.0.0.0/8"),
    ("metadata.goog", "203.0.113.1", 80, ["*"], [], CLOUD),
    ("metadata.goog", "203.0.113.1", 80, ["metadata.goog"], [], ""),
    ("metadata.goog", "169.254.169.254", 80, ["metadata.goog"], [], LINK),
    # What the operator allows.
    ("example.org", "93.184.216.34", 80, ["example.org"], [], ""),
    ("other.example", "93.184.216.34", 80, ["example.org"], [], "not allowed"),
    ("93.184.216.34", "93.184.216.34", 80, ["example.org"], [], "not allowed"),
    ("www.example.org", "93.184.216.34", 443, ["*.example.org:443"], [], ""),
    ("www.example.org", "93.184.216.34", 80, ["*.example.org:443"], [], "not allowed"),
    ("example.org", "93.184.216.34", 443, ["*.example.org:443"], [], "not allowed"),
    ("notexample.org", "93.184.216.34", 443, ["*.example.org:443"], [], "not allowed"),
    ("example.org.evil.example", "93.184.216.34", 443, ["*.example.org", "example.org"], [], "not allowed"),
    ("93.184.216.34", "93.184.216.34", 443, ["*:443"], [], ""),
    ("93.184.216.34", "93.184.216.34", 25, ["*:443"], [], "not allowed"),
    ("host.example", "10.1.2.3", 8080, ["10.0.0.0/8:8000-8999"], [], ""),
    ("host.example", "11.1.2.3", 8080, ["10.0.0.0/8:8000-8999"], [], "not allowed"),
    ("host.example", "10.1.2.3", 9000, ["10.0.0.0/8:8000-8999"], [], "not allowed"),
    ("host.example", "::ffff:10.1.2.3", 80, ["10.0.0.0/8"], [], ""),
    # What the operator denies comes first, by name or by address.
    ("example.org", "93.184.216.34", 80, ["*"], ["example.org"], "denied by example.org"),
    ("a.b.example.org", "93.184.216.34", 80, [], ["*.example.org"], "denied by *.example.org"),
    ("example.org", "10.1.2.3", 80, ["*"], ["10.0.0.0/8"], "denied by 10.0.0.0/8"),
    ("example.org", "::ffff:10.1.2.3", 80, ["*"], ["10.0.0.0/8"], "denied by 10.0.0.0/8"),
    ("example.org", "2001:db8::1", 25, [], ["[2001:db8::/32]:25"], "denied by [2001:db8::/32]:25"),
    ("example.org", "2001:db8::1", 26, [], ["[2001:db8::/32]:25"], ""),
    ("93.184.216.34", "93.184.216.34", 25, [], ["*:25"], "denied by *:25"),
    ("example.org", "93.184.216.34", 25, [], ["*:25"], "denied by *:25"),
]  # fmt: skip


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: " ".join(map(str, attempt[:5])))
def test_attempts(attempt: Attempt) -> None:
    """A target is reached, or refused for a reason that is in the log."""
    name, address, port, allow, deny, refusal = attempt
    assert judged(name, address, port, allow, deny) == refusal


@pytest.mark.parametrize(
    "text",
    ["*", "*:25", "example.org", "*.example.org:443", "10.0.0.0/8", "10.0.0.0/8:1-2", "2001:db8::/32",
     "[2001:db8::/32]:25", "127.0.0.1/32"],
)  # fmt: skip
def test_a_pattern_is_written_as_it_was_read(text: str) -> None:
    """So that messages name what the operator wrote."""
    assert str(TargetPattern.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not a host pattern"),
        (":80", "is not a host pattern"),
        ("*example.org", "is not a host pattern"),
        ("www.*.org", "is not a host pattern"),
        ("example.org:", "'' is not a port"),
        ("example.org:http", "'http' is not a port"),
        ("example.org:80-70", "out of order"),
        ("example.org:70000", "above 65535"),
        ("10.0.0.1/8", "has host bits set"),
        ("10.0.0", "does not appear to be"),
        ("2001:db8::/200", "does not appear to be"),
        ("[example.org]:80", "brackets are for IPv6"),
        ("[::1]80", "does not appear to be"),
    ],
)
def test_what_is_no_pattern(text: str, why: str) -> None:
    """The mistake is named."""
    with pytest.raises(ValueError, match=why.replace("*", r"\*")):
        TargetPattern.parse(text)


@given(st.text(st.sampled_from("abz019.*:/[]-% ")) | st.text())
def test_no_text_breaks_the_reader(text: str) -> None:
    """It is a pattern, which can be written and read again, or a ValueError."""
    try:
        pattern = TargetPattern.parse(text)
    except ValueError:
        return
    assert TargetPattern.parse(str(pattern)) == pattern


@given(st.ip_addresses(), st.integers(0, 65535))
def test_every_address_can_be_judged(address: object, port: int) -> None:
    """And with everything denied none is allowed."""
    assert judged(str(address), str(address), port, [], ["*"]) == "denied by *"
    judged(str(address), str(address), port, ["*"], [])
