from anyp2p_core.pubsub.seen import SeenCache


def test_an_id_is_known_until_its_time_is_over():
    seen = SeenCache(ttl=10.0, size=100)
    assert seen.add(b"a", 0.0)
    assert seen.add(b"b", 5.0)
    assert not seen.add(b"a", 9.0)  # which does not make it younger
    seen.sweep(10.0)
    assert b"a" in seen and len(seen) == 2
    seen.sweep(10.1)
    assert b"a" not in seen and b"b" in seen
    assert seen.add(b"a", 10.2)
    seen.sweep(100.0)
    assert len(seen) == 0


def test_the_oldest_makes_room():
    seen = SeenCache(ttl=10.0, size=3)
    for number in range(5):
        seen.add(bytes([number]), 0.0)
    assert [bytes([number]) in seen for number in range(5)] == [False, False, True, True, True]
