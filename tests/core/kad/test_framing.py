"""Messages cut out of streams, and the account of what is incomplete."""

import pytest
from hypothesis import given, strategies as st

from anyp2p_core.errors import RemoteError
from anyp2p_core.kad.framing import Framing, Held
from anyp2p_core.varint import delimited

TABLE = [
    (b"", []),
    (b"\x00", [b""]),
    (b"\x01a", [b"a"]),
    (b"\x02ab\x01c", [b"ab", b"c"]),
    (delimited(b"x" * 300), [b"x" * 300]),
]


@pytest.mark.parametrize(("data", "expected"), TABLE)
@pytest.mark.parametrize("trailing", [b"", b"\x05ab"])
def test_whole_and_byte_by_byte(data, expected, trailing):
    for pieces in ([data + trailing], [bytes((one,)) for one in data + trailing]):
        held = Held(1000)
        frames = Framing(500, held)
        assert [found for piece in pieces for found in frames.receive(piece)] == expected
        assert frames.pending == held.total == len(trailing)
        frames.close()
        assert frames.pending == held.total == 0
        frames.close()
        assert held.total == 0


@given(st.lists(st.binary(max_size=40), max_size=8), st.data())
def test_any_cut(messages, data):
    whole = b"".join(map(delimited, messages))
    held = Held(1000)
    frames = Framing(500, held)
    found = []
    while whole:
        size = data.draw(st.integers(1, len(whole)))
        found += frames.receive(whole[:size])
        whole = whole[size:]
    assert found == messages and held.total == 0


@pytest.mark.parametrize("data", [delimited(bytes(501)), b"\x80" * 12, b"\x80\x00"])
def test_what_is_too_long_is_refused_by_its_length_alone(data):
    frames = Framing(500, Held(1000))
    with pytest.raises(RemoteError):
        for one in data[:3] if len(data) > 20 else data:
            frames.receive(bytes((one,)))


def test_all_streams_together_are_bounded():
    held = Held(100)
    one, other = Framing(500, held), Framing(500, held)
    one.receive(delimited(bytes(80))[:70])
    other.receive(delimited(bytes(80))[:30])
    assert held.total == 100
    with pytest.raises(RemoteError, match="100 bytes"):
        other.receive(b"x")
    other.close()
    one.receive(b"x")
    # A message that comes as a whole is held by nobody.
    full = Held(0)
    assert Framing(500, full).receive(delimited(b"x" * 99)) == [b"x" * 99]


def test_one_peer_takes_a_quarter_at_most():
    held = Held(400)
    greedy, modest = held.share(), held.share()
    frames = [Framing(500, greedy) for _ in range(4)]
    with pytest.raises(RemoteError, match="100 bytes"):
        for one in frames:
            one.receive(delimited(bytes(80))[:30])
    assert held.total == greedy.total == 120
    Framing(500, modest).receive(delimited(bytes(80))[:50])
    assert (held.total, modest.total) == (170, 50)
    with pytest.raises(RemoteError, match="400 bytes"):
        for _ in range(9):
            Framing(500, held.share()).receive(delimited(bytes(80))[:40])
    for one in frames:
        one.close()
    assert greedy.total == 0
