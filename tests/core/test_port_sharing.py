import pytest
from hypothesis import given, strategies as st

from anyp2p_core.port_sharing import PortSharing

# What comes, what it is, and after how many bytes that is known.
TABLE = [
    (b"\x13/multistream/1.0.0\n", "tcp", 1),
    (b"GET / HTTP/1.1\r\n\r\n", "ws", 3),
    (b"GET", "ws", 3),
    (b"\x16\x03\x01\x02\x00\x01", "tls", 3),
    (b"\x16\x03\x03\x02\x00\x01", "tls", 3),
    (b"\x16\x03\x05", "tcp", 3),
    (b"\x16\x04\x01", "tcp", 2),
    (b"GEx", "tcp", 3),
    (b"Gx", "tcp", 2),
    (b"POST / HTTP/1.1\r\n\r\n", "tcp", 1),
    (bytes(24), "tcp", 1),
]


def decide(pieces):
    """The kind, what comes out for it, and how many bytes were needed."""
    sharing = PortSharing()
    fed = 0
    for piece in pieces:
        fed += len(piece)
        data = sharing.receive(piece)
        assert (data is None) == (sharing.kind is None)
        if data is not None:
            return sharing.kind, data, fed
    return None, b"", fed


@pytest.mark.parametrize(("data", "kind", "needed"), TABLE)
def test_table(data, kind, needed):
    assert decide([data]) == (kind, data, len(data))
    assert decide([data + b"GET"])[:2] == (kind, data + b"GET")
    single = [bytes((byte,)) for byte in data]
    assert decide(single) == (kind, data[:needed], needed)
    assert decide(single[: needed - 1])[0] is None
    assert decide([b"", *single])[0] == kind


@given(st.binary(max_size=40), st.lists(st.integers(1, 40), max_size=5))
def test_cuts_do_not_matter(data, cuts):
    cuts = sorted({cut for cut in cuts if cut < len(data)})
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    kind, out, fed = decide(pieces)
    assert kind == decide([data])[0]
    assert kind is not None or len(data) < 3
    assert out == data[: fed if kind else 0]
