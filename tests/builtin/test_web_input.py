"""What has come of a connection of HTTP/1.1 is parsed in pieces of no more than one request."""

from tamed.web._http1_input import Input

_HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def test_a_piece_ends_with_a_head_wherever_it_was_cut() -> None:
    """The end of a head is found also if it has come in two parts."""
    for cut in range(1, len(_HEAD)):
        waiting = Input()
        waiting.add(_HEAD[:cut])
        first = bytes(waiting.next_piece(0))
        waiting.passed(first)
        waiting.add(_HEAD[cut:] + _HEAD)
        assert first + bytes(waiting.next_piece(0)) == _HEAD, cut
        assert waiting.left == len(_HEAD)
        waiting.begin()
        assert bytes(waiting.next_piece(0)) == _HEAD
        assert waiting.left == 0


def test_a_piece_ends_with_a_body_of_known_length() -> None:
    """What follows a body is another piece, and can be taken as it is."""
    waiting = Input()
    waiting.add(b"body" + _HEAD)
    assert bytes(waiting.next_piece(4)) == b"body"
    assert waiting.take() == _HEAD
    assert waiting.left == 0


def test_a_piece_has_a_bounded_length() -> None:
    """A long body is parsed in parts of 64 KiB."""
    waiting = Input()
    waiting.add(bytes(200_000))
    pieces = []
    while waiting.left:
        pieces.append(len(waiting.next_piece(waiting.left)))
    assert pieces == [65536, 65536, 65536, 3392]
