from core.kad.people import peer

from anyp2p_core.pubsub import promises as module
from anyp2p_core.pubsub.promises import Promises

A, B = peer(1), peer(2)


def test_kept_and_broken():
    promises = Promises(3.0)
    promises.add(A, b"x", 0.0)
    promises.add(A, b"y", 1.0)
    promises.add(A, b"y", 2.0)
    promises.add(B, b"x", 1.0)
    assert len(promises) == 3
    assert promises.broken(3.0) == {}
    assert promises.broken(3.5) == {A: 1}
    promises.kept(b"x")
    promises.kept(b"never heard of")
    assert len(promises) == 1
    assert promises.broken(10.0) == {A: 1}
    assert len(promises) == 0 and promises.broken(100.0) == {}


def test_the_number_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "MAX_PROMISES", 5)
    promises = Promises(3.0)
    for number in range(20):
        promises.add(A, bytes([number]), 0.0)
        assert len(promises) <= 5
    assert promises.broken(9.0) == {A: 5}
