"""Results for short keys are kept in bounded number."""

from tamed.web._heads import Memo


def test_a_result_is_made_once() -> None:
    """A key that was looked up before is not computed again."""
    made: list[bytes] = []

    def make(key: bytes) -> int:
        made.append(key)
        return len(key)

    memo = Memo(make, most=2)
    assert [memo[b"a"], memo[b"ab"], memo[b"a"]] == [1, 2, 1]
    assert made == [b"a", b"ab"]


def test_clients_that_choose_keys_do_not_fill_the_memory() -> None:
    """After the most keys that are kept all are forgotten, and computed anew."""
    memo = Memo(len, most=2)
    assert [memo[bytes(length)] for length in range(1000)] == list(range(1000))
    assert len(memo) <= 2
