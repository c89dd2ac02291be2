"""Faces that load what is behind them when it is asked for."""

import pytest

import tamed.net as face


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A name that is not there fails as it does in any module."""
    with pytest.raises(AttributeError, match=r"module 'tamed\.net' has no attribute 'nothing'"):
        face.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_a_face_lists_its_names() -> None:
    """``dir`` gives the public names, loaded or not."""
    assert dir(face) == sorted(face.__all__)
