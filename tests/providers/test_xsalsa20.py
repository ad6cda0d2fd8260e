"""anyp2p.providers.xsalsa20, and what a fork does to it."""

import hashlib
import importlib.util
import itertools
import os
import subprocess
import sys

import pytest
import vectors
from Crypto.Cipher import Salsa20
from hypothesis import given, settings, strategies as st

from anyp2p.extras import MissingExtra
from anyp2p.providers import xsalsa20 as provider
from anyp2p.providers.poison import poisoned_by_fork
from anyp2p.providers.xsalsa20 import SalsaCiphers, hsalsa20

CIPHERS = SalsaCiphers()

# The worked example of the paper "Cryptography in NaCl".
SHARED = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
FIRST_KEY = bytes.fromhex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389")
SECOND_KEY = bytes.fromhex("dc908dda0b9344a953629b733820778880f3ceb421bb61b91cbd4c3e66256ce4")
NONCE = bytes.fromhex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37")
START = bytes.fromhex("eea6a7251c1e72916d11c2cb214d3c252539121d8e234e652d651fa4c8cff880")
MESSAGE = bytes(32) + bytes.fromhex(
    "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffc"
    "e5ecbaaf33bd751a1ac728d45e6c61296cdc3c01233561f41db66cce314adb31"
    "0e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde"
    "048977eb48f59ffd4924ca1c60902e52f0a089bc76897040e082f93776384864"
    "5e0705"
)
SEALED = bytes.fromhex(
    "8e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c531a1186a"
    "c0dfc17c98dce87b4da7f011ec48c97271d2c20f9b928fe2270d6fb863d51738"
    "b48eeee314a7cc8ab932164548e526ae90224368517acfeabd6bb3732bc0e9da"
    "99832b61ca01b6de56244a9e88d5f9b37973f622a43d14a6599b1f654cb45a74"
    "e355a5"
)
# Of the 4 MiB of key stream that follow from the same key and nonce.
SHA256_OF_4_MIB = "662b9d0e3463029156069b12f918691a98f7dfb2ca0393c96bbfc6b1fbd630a2"

# Key, nonce, bytes 32 to 63 of the key stream: from the boxes of libsodium. The middle of a nonce
# becomes a block counter here; these are the counters that could go wrong.
COUNTERS = [
    (
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "000000000000000000000000000000000000000000000000",
        "7dfff3d8b74cd5ff0e732b3f214f30549a7eeb6114e7dd085237476bd3f3d657",
    ),
    (
        "4bf5122f344554c53bde2ebb8cd2b7e3d1600ad631c385a5d7cce23c7785459a",
        "ffffffffffffffffffffffffffffffffffffffffffffffff",
        "19ec6a5ba6010caeb83993c0ecc40d2d635ea17e2a987be223a20a5a07e905ab",
    ),
    (
        "dbc1b4c900ffe48d575b5da5c638040125f65db0fe3e24494b76ea986457d986",
        "1122334455667788ffffffffffffffff0102030405060708",
        "715210c85090b837cbc36280b5d93faccff3e8c62ccd0807af4168e655c2376a",
    ),
    (
        "084fed08b978af4d7d196a7446a86b58009e636b611db16211b65a9aadff29c5",
        "1122334455667788ffffffff000000000102030405060708",
        "9cd4ca654dc58f947ee51b8b84b894d88a15d51c58ba92f4e5a4a2f50c4d2a5d",
    ),
    (
        "e52d9c508c502347344d8c07ad91cbd6068afc75ff6292f062a09ca381c89e71",
        "112233445566778800000000010000000102030405060708",
        "fafc7833584b78a9e43efddf1f26273a89485529e8b44dd781bea3496229ac7f",
    ),
]


def stream(key=FIRST_KEY, nonce=NONCE):
    return CIPHERS.xsalsa20(key, nonce)


def test_hsalsa20():
    assert hsalsa20(SHARED, bytes(16)) == FIRST_KEY
    assert hsalsa20(FIRST_KEY, NONCE[:16]) == SECOND_KEY


def test_the_paper():
    assert stream()(bytes(32)) == START
    assert stream()(MESSAGE)[32:] == SEALED
    assert hashlib.sha256(stream()(bytes(4 << 20))).hexdigest() == SHA256_OF_4_MIB


@pytest.mark.parametrize("key, nonce, expected", COUNTERS)
def test_every_nonce_can_be_used(key, nonce, expected):
    made = stream(bytes.fromhex(key), bytes.fromhex(nonce))(bytes(64))
    assert made[32:].hex() == expected


def test_js():
    case = vectors.load("pnet_js")
    cipher = stream(bytes.fromhex(case["psk"]), bytes.fromhex(case["nonce"]))
    for write in case["writes"]:
        assert cipher(bytes.fromhex(write["plain"])).hex() == write["cipher"]


@settings(deadline=None)
@given(st.lists(st.integers(0, 300), max_size=10), st.sampled_from([bytes, bytearray, memoryview]))
def test_pieces_of_any_size_and_kind(sizes, kind):
    data = os.urandom(sum(sizes))
    edges = [0, *itertools.accumulate(sizes)]
    whole, cut = stream()(data), stream()
    made = [cut(kind(data[start:end])) for start, end in itertools.pairwise(edges)]
    assert b"".join(made) == whole and all(type(piece) is bytes for piece in made)


def test_salsa20():
    # Set 1, vector 0 of the eSTREAM submission, 256 bits.
    made = CIPHERS.salsa20(b"\x80" + bytes(31), bytes(8))(bytes(64))
    assert made[:16].hex() == "e3be8fdd8beca2e3ea8ef9475b29a6e7"


def test_lengths():
    for key, nonce in ((FIRST_KEY[1:], NONCE), (FIRST_KEY, NONCE[1:]), (FIRST_KEY, NONCE + b"x")):
        with pytest.raises(Exception):  # noqa: B017  whatever the library says
            stream(key, nonce)


def test_row_41_after_a_fork():
    """In a process of its own: pytest's may have threads, with which a fork is unsafe."""
    program = """
import os
from anyp2p.providers.xsalsa20 import SalsaCiphers
from anyp2p_core import LocalError
stream = SalsaCiphers().xsalsa20(bytes(32), bytes(24))
stream(b"before")
child = os.fork()
if child == 0:
    try:
        stream(b"the same key stream")
    except LocalError as error:
        again = SalsaCiphers().xsalsa20(bytes(32), bytes(24))
        os._exit(7 if "forked" in str(error) and len(again(b"new")) == 3 else 8)
    os._exit(9)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
stream(b"the parent goes on")
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


def test_the_guard_changes_nothing():
    assert poisoned_by_fork(bytes.upper)(b"abc") == b"ABC"


def fresh():
    spec = importlib.util.spec_from_file_location("anyp2p.providers.fresh", provider.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def test_what_to_install(monkeypatch):
    fresh()
    monkeypatch.delattr(Salsa20.Salsa20Cipher, "seek")
    with pytest.raises(MissingExtra, match=r"4\.0 or newer"):
        fresh()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("anyp2p.extras.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"anyp2p\[pnet\]"):
        fresh()
