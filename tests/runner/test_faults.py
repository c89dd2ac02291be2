"""Errors that one process sends to another."""

import json

import pytest

from tamed.errors import ConfigurationError, DeadlinePassed, SystemRefused, TamedError, Unavailable
from tamed.ipc.fault import fault_data, fault_of


@pytest.mark.parametrize("kind", [Unavailable, ConfigurationError, SystemRefused])
def test_an_error_arrives_as_it_was(kind: type[TamedError]) -> None:
    """The kind, and so the status, and the three parts arrive unchanged."""
    data = json.loads(json.dumps(fault_data(kind("what", "why", "remedy"))))
    error = fault_of(data)
    assert type(error) is kind
    assert (error.what, error.why, error.remedy) == ("what", "why", "remedy")


def test_a_special_kind_arrives_as_the_general_one() -> None:
    """The general kind has the same status."""
    error = fault_of(fault_data(DeadlinePassed(3.0)))
    assert error.status == DeadlinePassed(3.0).status
    assert str(error) == "not done within 3 s"


def test_a_kind_that_is_not_known_is_the_systems_fault() -> None:
    """An unknown kind, from another version, becomes an error of the system."""
    error = fault_of({"kind": "Unheard", "what": "a", "why": "b", "remedy": ""})
    assert type(error) is SystemRefused
