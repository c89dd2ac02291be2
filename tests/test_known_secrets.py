"""Secrets in texts for others: which are recognised, and which are not."""

import json

import pytest

from tamed._os.secrets import Secrets


@pytest.fixture
def secrets() -> Secrets:
    """None so far."""
    return Secrets()


def test_a_secret_is_hidden_in_any_form(secrets: Secrets) -> None:
    """Also inside of quotes, and each long line of it."""
    secret = 'a "q"\\x\nsecond line'
    assert not secrets
    secrets.remember(secret)
    assert secrets
    for text in (secret, repr(secret), json.dumps(secret)):
        assert secrets.hidden(f"before {text} after") in (
            "before *** after",
            "before '***' after",
            'before "***" after',
        )
    assert secrets.hidden("the second line") == "the ***"
    secrets.forget()
    assert secrets.hidden("the second line") == "the second line"


def test_the_longest_is_hidden_first(secrets: Secrets) -> None:
    """One may be the beginning of another."""
    secrets.remember("sesame")
    secrets.remember("sesame-open")
    assert secrets.hidden("it is sesame-open, not sesame") == "it is ***, not ***"


def test_a_short_secret_is_not_looked_for(secrets: Secrets) -> None:
    """It would be found everywhere."""
    secrets.remember("yes")
    assert secrets.hidden("yes") == "yes"
