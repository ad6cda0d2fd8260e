"""anyp2p_core.growth: what all windows of a session may grow together."""

from hypothesis import given, strategies as st

from anyp2p_core.growth import Growth
from anyp2p_core.limits import Limits


def make(max_unread: int = 1000, max_stream_window: int = 10_000, largest: int = 10_000) -> Growth:
    return Growth(Limits(max_unread=max_unread, max_stream_window=max_stream_window), largest)


def test_a_window_doubles_while_there_is_room() -> None:
    growth = make(max_unread=1000)
    assert [growth.reserve(size) for size in (100, 200, 400, 100)] == [100, 200, 200, 0]


def test_no_window_is_larger_than_either_limit() -> None:
    for growth in (make(max_stream_window=150), make(largest=150)):
        assert growth.reserve(100) == 50
        assert growth.reserve(150) == growth.reserve(151) == 0  # and nothing is given back
        assert growth.reserve(1) == 1


def test_a_finished_stream_makes_room() -> None:
    growth = make(max_unread=200)
    assert growth.reserve(100) == 100 and growth.reserve(1) == 0
    growth.release(60)
    assert growth.reserve(100) == 60


@given(st.integers(0, 1000), st.lists(st.integers(1, 300)))
def test_all_together_stay_within_half(max_unread: int, sizes: list[int]) -> None:
    growth = make(max_unread, 250)
    got = [growth.reserve(size) for size in sizes]
    assert min(got, default=0) >= 0 and sum(got) <= max_unread // 2
    assert all(
        n <= size and (n == 0 or size + n <= 250) for n, size in zip(got, sizes, strict=True)
    )
