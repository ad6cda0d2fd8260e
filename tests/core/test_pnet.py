"""anyp2p_core.pnet"""

import copy
import itertools
import pickle
import time

import pytest
import vectors
from hypothesis import given, settings, strategies as st
from stranger import one_by_one

from anyp2p.providers.entropy import OsEntropy
from anyp2p.providers.xsalsa20 import SalsaCiphers
from anyp2p_core import HandshakeError, LocalError
from anyp2p_core.errors import DecodeError
from anyp2p_core.layer import Layer, LayerMaker
from anyp2p_core.pnet import MAX_TEXT, Pnet, PreSharedKey, PrivateNetwork

JS = vectors.load("pnet_js")
GO = vectors.load("pnet")
RAW = bytes.fromhex(JS["psk"])
KEY = PreSharedKey(RAW)
OTHER = PreSharedKey(bytes(range(32)))
NONCE = bytes.fromhex(JS["nonce"])
CIPHERS = SalsaCiphers()
PATH = "/key/swarm/psk/1.0.0/"
B64 = "YYnFzwuH+4AMGp/u2nPGq16ZjbSPueapeFdcdwzu9oM="
HELLO = b"\x13/multistream/1.0.0\n\x07/noise\n"


def entropy_of(*draws):
    rest = list(draws)
    return lambda n: rest.pop(0)


def make(key=KEY, nonce=None):
    """A layer with what it wrote and what it passed on."""
    out, seen = [], []
    entropy = OsEntropy() if nonce is None else entropy_of(nonce)
    layer = Pnet(key, ciphers=CIPHERS, entropy=entropy, write=out.append)
    layer.on_data = lambda data, now: seen.append((data, now))
    return layer, out, seen


def joined(seen):
    return b"".join(data for data, _ in seen)


# Keys


def file_of(encoding, value, end="\n"):
    value = value.encode() if isinstance(value, str) else value
    return f"{PATH}{end}{encoding}{end}".encode() + value


GOOD = {
    "js": JS["swarmKeyFile"].encode(),
    "base16": file_of("/base16/", RAW.hex()),
    "base16, line end": file_of("/base16/", RAW.hex() + "\n"),
    "base16, upper case": file_of("/base16/", RAW.hex().upper()),
    "base16, CRLF": file_of("/base16/", RAW.hex() + "\r\n", "\r\n"),
    "base64": file_of("/base64/", B64),
    "base64, CRLF": file_of("/base64/", B64 + "\r\n", "\r\n"),
    "bin": file_of("/bin/", RAW),
    "bin, CRLF": file_of("/bin/", RAW, "\r\n"),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_files(name):
    assert PreSharedKey.parse(GOOD[name]) == KEY
    if "bin" not in name:
        assert PreSharedKey.parse(GOOD[name].decode()) == KEY


@pytest.mark.parametrize("raw", [bytes(32), b"\n" * 32, b"\r\n" * 16, bytes(range(224, 256))])
def test_any_bytes_are_a_key(raw):
    key = PreSharedKey(raw)
    assert PreSharedKey.parse(file_of("/bin/", raw)) == key
    assert PreSharedKey.parse(key.to_text()) == key
    assert PreSharedKey.parse(key.to_text().encode()) == key


def test_text_is_that_of_the_others():
    assert KEY.to_text().strip() == JS["swarmKeyFile"].strip()


BAD = {
    "empty": ("", "first line"),
    "garbage": ("a\nb\nc", "first line"),
    "only the key": (RAW.hex(), "first line"),
    "another version": (file_of("/base16/", RAW.hex()).replace(b"1.0.0", b"2.0.0"), "first line"),
    "a blank in front": (b" " + GOOD["base16"], "first line"),
    "no encoding": (PATH + "\n", "second line"),
    "only the path": (PATH, "second line"),
    "unknown encoding": (f"{PATH}\nx\ny", "second line"),
    "base32": (file_of("/base32/", "a" * 52), "second line"),
    "no key": (f"{PATH}\n/base16/", "missing"),
    "empty key": (f"{PATH}\n/base64/\n\n", "missing"),
    "no hex": (f"{PATH}\n/base16/\ny", "in /base16/"),
    "odd hex": (file_of("/base16/", RAW.hex()[1:]), "in /base16/"),
    "hex with blanks": (file_of("/base16/", RAW.hex(" ")), "in /base16/"),
    "hex of no ASCII": (f"{PATH}\n/base16/\n" + "\u0661" * 64, "in /base16/"),
    "hex cut": (f"{PATH}\n/base16/\ndffb7e", "there are 3"),
    "hex too long": (file_of("/base16/", RAW.hex() + "00"), "there are 33"),
    "one more line": (file_of("/base16/", RAW.hex() + "\nmore"), "last line"),
    "two line ends": (file_of("/base16/", RAW.hex() + "\n\n"), "last line"),
    "base64 without padding": (file_of("/base64/", GOOD["base64"][-44:-1]), "in /base64/"),
    "base64 with other letters": (file_of("/base64/", "-" * 43 + "="), "in /base64/"),
    "base64 with bits left over": (file_of("/base64/", "/" * 43 + "="), "in /base64/"),
    "base64 too short": (file_of("/base64/", "AAAA"), "there are 3"),
    "bin cut": (file_of("/bin/", RAW[1:]), "there are 31"),
    "bin with a line end": (file_of("/bin/", RAW + b"\n"), "there are 33"),
    "bin as text": (file_of("/bin/", b"a" * 32).decode(), "as bytes"),
    "too long": (GOOD["base16"].ljust(MAX_TEXT + 1), "longer than"),
    "lone surrogate": ("\udc80", "first line"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(name):
    content, why = BAD[name]
    with pytest.raises(DecodeError, match=why) as caught:
        PreSharedKey.parse(content)
    assert RAW.hex() not in str(caught.value) and caught.value.__context__ is None


def test_the_bad_files_of_the_others():
    for case in GO["bad_files"]:
        with pytest.raises(DecodeError):
            PreSharedKey.parse(case["text"])


@given(st.binary(max_size=100), st.sampled_from(["", "/base16/", "/base64/", "/bin/"]))
def test_garbage_files(data, encoding):
    for content in (data, file_of(encoding, data), data.decode("latin-1")):
        try:
            key = PreSharedKey.parse(content)
        except DecodeError:
            continue
        assert PreSharedKey.parse(key.to_text()) == key


@given(st.integers(0, 115), st.binary(max_size=3))
def test_a_file_changed_anywhere(at, change):
    content = GOOD["base16"]
    try:
        key = PreSharedKey.parse(content[:at] + change + content[at + 1 :])
    except DecodeError:
        return
    assert len(key.to_text()) == len(KEY.to_text())


def test_a_key_has_32_bytes():
    for size in (0, 31, 33):
        with pytest.raises(LocalError, match=f"not {size}"):
            PreSharedKey(bytes(size))


def test_generated_keys():
    made = PreSharedKey.generate(OsEntropy())
    assert made != PreSharedKey.generate(OsEntropy()) and not made.simulated
    seeded = PreSharedKey.generate(entropy_of(RAW))
    assert seeded == KEY and seeded.simulated and not KEY.simulated
    with pytest.raises(LocalError):
        PreSharedKey.generate(entropy_of(b"short"))


def test_equality():
    assert PreSharedKey(bytearray(RAW)) == KEY != OTHER
    assert RAW != KEY and JS["psk"] != KEY
    with pytest.raises(TypeError):
        hash(KEY)


def test_fingerprint():
    case = GO["fingerprint"]
    assert PreSharedKey.parse(case["file"]).fingerprint(CIPHERS) == case["fingerprint"]
    assert OTHER.fingerprint(CIPHERS) != case["fingerprint"]


@pytest.mark.parametrize("act", [pickle.dumps, copy.copy, copy.deepcopy])
def test_row_39_neither_pickled_nor_copied(act):
    for secret in (KEY, make()[0], make(nonce=NONCE)[0]):
        with pytest.raises(TypeError, match="neither pickled nor copied"):
            act(secret)


def test_row_39_repr():
    layer, _, _ = make()
    assert repr(KEY) == str(KEY) == f"{KEY}" == "<PreSharedKey>"
    assert repr(layer) == "<Pnet without the peer's nonce>"
    layer.receive(bytes(24), 0.0)
    assert repr(layer) == "<Pnet with the peer's nonce>"


# The layer


def test_it_is_a_layer():
    maker: LayerMaker = PrivateNetwork(KEY, CIPHERS, OsEntropy())
    out = []
    layer: Layer = maker.start(initiator=True, route=None, write=out.append)
    assert layer.open and [len(piece) for piece in out] == [24]
    again = []
    maker.start(initiator=False, route=None, write=again.append)
    assert again != out
    layer.on_open(1.0)
    layer.on_end(1.0)
    layer.receive(again[0] + b"nobody listens yet", 1.0)
    assert layer.finish() == b"" and maker.key == KEY


def test_against_js():
    sender, out, _ = make(nonce=NONCE)
    receiver, _, seen = make()
    assert out == [NONCE]
    receiver.receive(NONCE, 1.0)
    for write in JS["writes"]:
        plain, cipher = bytes.fromhex(write["plain"]), bytes.fromhex(write["cipher"])
        assert sender.seal([plain[:3], b"", plain[3:]]) == cipher
        receiver.receive(cipher, 2.0)
        assert seen.pop() == (plain, 2.0)
    assert not seen


def wire(pieces, nonce=NONCE, key=KEY):
    sender, out, _ = make(key, nonce)
    return out[0] + b"".join(sender.seal([piece]) for piece in pieces)


PLAIN = HELLO + bytes(range(256))


def test_split_everywhere():
    data = wire([PLAIN])
    cuts = [[data], one_by_one(data), *([data[:n], data[n:]] for n in range(len(data) + 1))]
    for pieces in cuts:
        layer, _, seen = make()
        for piece in pieces:
            layer.receive(piece, 5.0)
        assert joined(seen) == PLAIN
        assert all(data and now == 5.0 for data, now in seen)
        layer.receive_eof()


@given(st.lists(st.integers(0, len(PLAIN) + 24), max_size=8), st.lists(st.integers(0, len(PLAIN))))
def test_cut_anyhow_on_both_sides(here, there):
    edges = sorted({0, len(PLAIN), *there})
    data = wire([PLAIN[start:end] for start, end in itertools.pairwise(edges)])
    edges = sorted({0, len(data), *here})
    layer, _, seen = make()
    for start, end in itertools.pairwise(edges):
        layer.receive(data[start:end], 1.0)
    assert joined(seen) == PLAIN


def test_nothing_is_passed_on_for_nothing():
    layer, _, seen = make()
    for data in (b"", NONCE[:23], b"", NONCE[23:], b""):
        layer.receive(data, 1.0)
    assert seen == [] and layer.seal([]) == layer.seal([b""]) == b""


def test_an_end_before_the_nonce():
    for size in range(24):
        layer, _, _ = make()
        layer.receive(NONCE[:size], 1.0)
        with pytest.raises(HandshakeError, match=r"before its nonce.*another pre-shared key"):
            layer.receive_eof()
    layer.receive(NONCE[23:], 1.0)
    layer.receive_eof()


@pytest.mark.parametrize("cut", [lambda data: [data], one_by_one])
def test_a_mirror(cut):
    layer, _, seen = make(nonce=NONCE)
    data = NONCE + layer.seal([PLAIN])
    with pytest.raises(HandshakeError, match="mirror"):
        for piece in cut(data):
            layer.receive(piece, 1.0)
    for _ in range(2):  # and then again
        with pytest.raises(HandshakeError, match="mirror"):
            layer.receive(b"x", 1.0)
    assert seen == []


@pytest.mark.parametrize("cut", [lambda data: [data], one_by_one])
def test_a_peer_without_a_key(cut):
    layer, _, seen = make()
    with pytest.raises(HandshakeError, match="no pre-shared key"):
        for piece in cut(HELLO):
            layer.receive(piece, 1.0)
    assert seen == []


@pytest.mark.parametrize("cut", [lambda data: [data], one_by_one])
def test_another_key_makes_noise_and_nothing_else(cut):
    layer, _, seen = make()
    for piece in cut(wire([PLAIN], key=OTHER)):
        layer.receive(piece, 1.0)
    assert len(joined(seen)) == len(PLAIN) and joined(seen) != PLAIN


def test_callbacks_may_change_inside_of_a_callback():
    layer, _, seen = make()
    layer.on_data = lambda data, now: setattr(layer, "on_data", lambda *both: seen.append(both))
    data = wire([PLAIN])
    layer.receive(data[:30], 1.0)
    layer.receive(data[30:], 2.0)
    assert seen == [(PLAIN[6:], 2.0)]


def test_entropy_that_gives_too_little():
    with pytest.raises(LocalError, match="23 bytes"):
        make(nonce=bytes(23))


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_whatever_comes(data):
    for pieces in ([data], one_by_one(data)):
        layer, _, seen = make()
        for piece in pieces:
            layer.receive(piece, 1.0)
        assert len(joined(seen)) == max(0, len(data) - 24)


def test_one_byte_at_a_time_is_linear():
    data = wire([bytes(40_000)])

    def cost(size):
        layer, _, _ = make()
        start = time.process_time()
        for piece in one_by_one(data[:size]):
            layer.receive(piece, 1.0)
        return time.process_time() - start

    small = min(cost(5_000) for _ in range(5))
    assert min(cost(40_000) for _ in range(3)) < 8 * small * 3
