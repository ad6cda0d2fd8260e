from anyp2p_core.pubsub.backoff import Backoff


def test_how_long_it_lasts():
    backoff = Backoff(slack=2.0, size=10)
    backoff.add(b"t", b"p", 60.0)
    assert backoff.until(b"t", b"p") == 60.0
    assert backoff.until(b"t", b"q") is backoff.until(b"u", b"p") is None
    assert backoff.blocks(b"t", b"p", 61.9) and not backoff.blocks(b"t", b"p", 62.0)
    assert not backoff.blocks(b"u", b"p", 0.0)
    backoff.add(b"t", b"p", 30.0)  # it never gets shorter
    assert backoff.until(b"t", b"p") == 60.0
    backoff.add(b"t", b"p", 70.0)
    assert backoff.until(b"t", b"p") == 70.0


def test_sweeping():
    backoff = Backoff(slack=2.0, size=10)
    backoff.add(b"t", b"p", 60.0)
    backoff.add(b"t", b"q", 80.0)
    backoff.add(b"u", b"p", 60.0)
    backoff.sweep(61.0)
    assert len(backoff) == 3
    backoff.sweep(62.0)
    assert len(backoff) == 1 and backoff.until(b"t", b"q") == 80.0


def test_the_oldest_makes_room():
    backoff = Backoff(slack=0.0, size=3)
    for number in range(10):
        backoff.add(b"t", bytes([number]), 60.0)
    assert len(backoff) == 3 and backoff.until(b"t", b"\x09") == 60.0
