"""anyp2p_core.quic_window: limits that follow the reader."""

from anyp2p_core.quic_window import Window


def double(size):
    return size


def test_half_a_window_makes_a_grant():
    window = Window(1000, 0.0)
    window.consumed += 499
    assert not window.due
    window.consumed += 1
    assert window.due and window.grant(None, double, 1.0) == 1500
    assert (window.limit, window.size, window.consumed) == (1500, 1000, 500)
    assert not window.due
    window.consumed += 1500
    assert window.due and window.grant(None, double, 1.0) == 3000


def test_it_grows_if_it_holds_the_peer_back():
    for now, size in ((0.4, 2000), (0.41, 1000)):
        window = Window(1000, 0.0)
        window.consumed = 500
        assert window.grant(0.1, double, now) == size + 500
        assert window.size == size
    window = Window(1000, 0.0)
    assert window.grant(0.1, lambda size: 1, 0.1) == 1001
