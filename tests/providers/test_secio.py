"""anyp2p.providers.secio"""

import itertools
import os
import subprocess
import sys
from contextlib import suppress

import pytest
from hypothesis import given, settings, strategies as st

from anyp2p.providers.entropy import OsEntropy
from anyp2p.providers.secio import OpensslSecio
from anyp2p_core import HandshakeError, LocalError
from anyp2p_core.secio import EXCHANGES

SECIO = OpensslSecio()
SIZES = {"P-256": 32, "P-384": 48, "P-521": 66}
PRIMES = {
    "P-256": 2**256 - 2**224 + 2**192 + 2**96 - 1,
    "P-384": 2**384 - 2**128 - 2**96 + 2**32 - 1,
    "P-521": 2**521 - 1,
}
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

# RFC 5903, section 8: private, public x, public y, the peer's x, the peer's y, shared x.
RFC_5903 = {
    "P-256": (
        "c88f01f510d9ac3f70a292daa2316de544e9aab8afe84049c62a9c57862d1433",
        "dad0b65394221cf9b051e1feca5787d098dfe637fc90b9ef945d0c3772581180",
        "5271a0461cdb8252d61f1c456fa3e59ab1f45b33accf5f58389e0577b8990bb3",
        "d12dfb5289c8d4f81208b70270398c342296970a0bccb74c736fc7554494bf63",
        "56fbf3ca366cc23e8157854c13c58d6aac23f046ada30f8353e74f33039872ab",
        "d6840f6b42f6edafd13116e0e12565202fef8e9ece7dce03812464d04b9442de",
    ),
}


def drawing(*draws):
    rest = list(draws)
    return lambda n: rest.pop(0).to_bytes(n, "big")


@pytest.mark.parametrize("curve", RFC_5903)
def test_the_rfc(curve):
    private, x, y, peer_x, peer_y, shared = RFC_5903[curve]
    key = SECIO.ephemeral(curve, drawing(int(private, 16)))
    assert key.public.hex() == "04" + x + y
    assert key.exchange(bytes.fromhex("04" + peer_x + peer_y)).hex() == shared


@pytest.mark.parametrize("curve", EXCHANGES)
def test_two_sides(curve):
    ours, theirs = (SECIO.ephemeral(curve, OsEntropy()) for _ in range(2))
    assert ours.public != theirs.public and len(ours.public) == 1 + 2 * SIZES[curve]
    secret = ours.exchange(theirs.public)
    assert secret == theirs.exchange(ours.public) and len(secret) == SIZES[curve]


def test_leading_zeros_stay():
    secrets = []
    for scalar in range(2, 12):
        key = SECIO.ephemeral("P-521", drawing(scalar))
        secrets.append(key.exchange(SECIO.ephemeral("P-521", drawing(scalar + 1)).public))
    assert {len(secret) for secret in secrets} == {66}
    assert any(secret[0] == 0 for secret in secrets)


@pytest.mark.parametrize("curve", EXCHANGES)
def test_points_that_are_none(curve):
    key = SECIO.ephemeral(curve, OsEntropy())
    good = SECIO.ephemeral(curve, OsEntropy()).public
    size = SIZES[curve]
    x, y = good[1 : 1 + size], int.from_bytes(good[1 + size :], "big")
    bad = [
        b"",
        b"\0",
        b"\4",
        good[:-1],
        good + b"\0",
        bytes(len(good)),
        b"\4" + bytes(2 * size),
        bytes((2 + y % 2,)) + x,  # compressed
        bytes((6 + y % 2,)) + good[1:],  # hybrid
        bytes((2 + y % 2,)) + good[1:],
        good[:-1] + bytes((good[-1] ^ 1,)),
        b"\4" + PRIMES[curve].to_bytes(size, "big") + good[1 + size :],
        b"\4" + b"\xff" * (2 * size),
        SECIO.ephemeral({"P-256": "P-384"}.get(curve, "P-256"), OsEntropy()).public,
    ]
    for point in bad:
        with pytest.raises(HandshakeError, match="point of the curve"):
            key.exchange(point)
    # the same point turned over is another one, and fine
    other = b"\4" + x + (PRIMES[curve] - y).to_bytes(size, "big")
    assert key.exchange(other) == key.exchange(good)


@settings(deadline=None, max_examples=50)
@given(st.binary(min_size=64, max_size=64))
def test_random_points(data):
    key = SECIO.ephemeral("P-256", drawing(7))
    with suppress(HandshakeError):
        assert len(key.exchange(b"\4" + data)) == 32


def test_draws_beyond_the_order_are_drawn_again():
    key = SECIO.ephemeral("P-256", drawing(0, P256_ORDER, 2**256 - 1, 5))
    assert key.public == SECIO.ephemeral("P-256", drawing(5)).public
    with pytest.raises(LocalError, match="not random"):
        SECIO.ephemeral("P-384", lambda n: bytes(n))
    high = SECIO.ephemeral("P-521", drawing((1 << 521) + 5))  # bits that the curve has not
    assert high.public == SECIO.ephemeral("P-521", drawing(5)).public


# NIST SP 800-38A, F.5.1 and F.5.5.
COUNTER = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
TEXT = bytes.fromhex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51")
NIST = [
    (
        "2b7e151628aed2a6abf7158809cf4f3c",
        "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff",
    ),
    (
        "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
        "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5",
    ),
]


@pytest.mark.parametrize("key, expected", NIST)
def test_aes_ctr(key, expected):
    crypt = SECIO.aes_ctr(bytes.fromhex(key), COUNTER)
    made = crypt(TEXT)
    assert made.hex() == expected and type(made) is bytes
    assert SECIO.aes_ctr(bytes.fromhex(key), COUNTER)(made) == TEXT


@given(st.lists(st.integers(0, 50), max_size=10))
def test_pieces_of_any_size(sizes):
    data = os.urandom(sum(sizes))
    edges = [0, *itertools.accumulate(sizes)]
    cut = SECIO.aes_ctr(bytes(16), b"\xff" * 16)  # the counter wraps around at once
    made = [cut(memoryview(data)[start:end]) for start, end in itertools.pairwise(edges)]
    assert b"".join(made) == SECIO.aes_ctr(bytes(16), b"\xff" * 16)(data)


def test_row_41_after_a_fork():
    """In a process of its own: pytest's may have threads, with which a fork is unsafe."""
    program = """
import os
from anyp2p.providers.secio import OpensslSecio
from anyp2p_core import LocalError
crypt = OpensslSecio().aes_ctr(bytes(32), bytes(16))
crypt(b"before")
child = os.fork()
if child == 0:
    try:
        crypt(b"the same key stream")
    except LocalError:
        os._exit(7)
    os._exit(9)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
crypt(b"the parent goes on")
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
