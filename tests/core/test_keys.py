"""anyp2p_core.keys"""

import base64
import copy
import logging
import pickle
import traceback

import pytest
import vectors
from hypothesis import given, settings, strategies as st

from anyp2p.providers.crypto import Cryptography
from anyp2p.providers.entropy import OsEntropy
from anyp2p_core import varint
from anyp2p_core.crypto import KeyType
from anyp2p_core.errors import DecodeError, LocalError
from anyp2p_core.keys import PrivateKey, PublicKey
from anyp2p_core.peer_id import PeerId

CRYPTO = Cryptography()
KEYS = vectors.load("peer_ids")["keys"]
SIGNATURES = vectors.load("keys_signatures_go_fixtures")["signatures"]
KINDS = [KeyType[key["kind"]] for key in KEYS]
ED25519 = bytes.fromhex(KEYS[0]["public"])
IDS = [key["kind"] for key in KEYS]


@pytest.fixture(scope="module")
def keys() -> list[PrivateKey]:
    return [PrivateKey.decode(bytes.fromhex(key["private"]), CRYPTO) for key in KEYS]


@pytest.mark.parametrize("key", KEYS, ids=IDS)
def test_the_keys_of_the_spec(key: dict[str, str]) -> None:
    private = PrivateKey.decode(bytes.fromhex(key["private"]), CRYPTO)
    public = PublicKey.decode(bytes.fromhex(key["public"]), CRYPTO)
    assert private.encode().hex() == key["private"]
    assert public.encode().hex() == key["public"]
    assert public.encode()[:2] == bytes((8, KeyType[key["kind"]]))  # also for type 0
    assert private.public == public
    assert private.kind == public.kind == KeyType[key["kind"]]
    assert public.data == public.encode()[-len(public.data) :]
    assert str(private.peer_id) == str(public.peer_id) == key["base58"]
    assert public.peer_id is public.peer_id
    assert public.verify(private.sign(b"message"), b"message")
    assert not public.verify(private.sign(b"message"), b"another")
    assert private.simulated is False


@pytest.mark.parametrize("case", SIGNATURES)
def test_signatures_of_other_implementations(case: dict[str, str]) -> None:
    public = PublicKey.decode(bytes.fromhex(case["public"]), CRYPTO)
    assert public.kind == KeyType[case["kind"]]
    message, signature = bytes.fromhex(case["message"]), bytes.fromhex(case["signature"])
    assert public.verify(signature, message)
    assert not public.verify(signature, b"")
    if "private" in case:
        private = PrivateKey.decode(bytes.fromhex(case["private"]), CRYPTO)
        assert private.public == public
        assert private.sign(message) == signature


def test_the_old_form_of_ed25519_keys_is_written_in_the_new_one() -> None:
    old = next(case for case in SIGNATURES if "note" in case)
    private = PrivateKey.decode(bytes.fromhex(old["private"]), CRYPTO)
    assert len(private.encode()) == 68
    assert PrivateKey.decode(private.encode(), CRYPTO).public == private.public


@pytest.mark.parametrize("kind", KINDS)
def test_generated_keys(kind: KeyType) -> None:
    key = PrivateKey.generate(CRYPTO, OsEntropy(), kind)
    assert key.kind == kind
    assert key.simulated is False
    again = PrivateKey.decode(key.encode(), CRYPTO)
    assert again.peer_id == key.peer_id
    assert key.public.verify(again.sign(b"m"), b"m")


def test_generate_makes_ed25519_keys_unless_told() -> None:
    assert PrivateKey.generate(CRYPTO, OsEntropy()).kind == KeyType.ED25519


def test_keys_from_seeded_entropy_are_marked() -> None:
    one, same = (PrivateKey.generate(CRYPTO, lambda n: b"\7" * n) for _ in range(2))
    assert one.simulated is True
    assert one.peer_id == same.peer_id


def test_the_size_of_rsa_keys() -> None:
    key = PrivateKey.generate(CRYPTO, OsEntropy(), KeyType.RSA, bits=3072)
    assert len(key.sign(b"m")) == 384
    with pytest.raises(LocalError, match="2048 to 8192"):
        PrivateKey.generate(CRYPTO, OsEntropy(), KeyType.RSA, bits=1024)


def test_a_key_may_live_elsewhere() -> None:
    """A signer is an interface: another process or a device can hold the secret."""
    inside = PrivateKey.decode(bytes.fromhex(KEYS[0]["private"]), CRYPTO)

    class Remote:
        public = inside.public.data

        @property
        def private(self) -> bytes:
            raise LocalError("the key stays in the device")

        def sign(self, message: bytes) -> bytes:
            return inside.sign(message)

    key = PrivateKey(Remote(), inside.public)
    assert key.peer_id == inside.peer_id
    assert key.public.verify(key.sign(b"m"), b"m")
    with pytest.raises(LocalError, match="device"):
        key.encode()


def test_public_keys_are_values(keys: list[PrivateKey]) -> None:
    publics = [PublicKey.decode(bytes.fromhex(key["public"]), CRYPTO) for key in KEYS]
    assert publics == [key.public for key in keys]
    assert publics[0] != publics[1]
    assert publics[0] != publics[0].encode()
    assert len({*publics, *(key.public for key in keys)}) == 4
    assert repr(publics[0]) == f"<PublicKey ED25519 {KEYS[0]['base58']}>"


def test_the_key_inside_a_peer_id() -> None:
    for key in KEYS:
        public = PublicKey.decode(bytes.fromhex(key["public"]), CRYPTO)
        expected = public if public.kind in (KeyType.ED25519, KeyType.SECP256K1) else None
        assert PublicKey.from_peer_id(public.peer_id, CRYPTO) == expected


@pytest.mark.parametrize(
    "inline",
    [
        b"",
        b"\x08\x01",
        b"\x08\x01\x12\x01\0",
        ED25519[2:] + ED25519[:2],  # another order
        ED25519 + b"\x18\0",  # an unknown field
        b"\x08\x81\0" + ED25519[2:],  # a number that is longer than it needs to be
    ],
)
def test_a_peer_id_must_hold_the_canonical_form_of_its_key(inline: bytes) -> None:
    with pytest.raises(DecodeError):
        PublicKey.from_peer_id(PeerId(bytes((0, len(inline))) + inline), CRYPTO)


def test_a_key_in_another_spelling_has_the_id_of_the_canonical_one() -> None:
    for message in (ED25519[2:] + ED25519[:2], ED25519 + b"\x18\0", b"\x08\0" + ED25519):
        public = PublicKey.decode(message, CRYPTO)
        assert public.encode() == ED25519
        assert str(public.peer_id) == KEYS[0]["base58"]


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x08\x01",
        ED25519[2:],  # no type
        b"\x08\x01\x12\0",
        b"\x08\x04" + ED25519[2:],
        b"\x08\x7f" + ED25519[2:],
        b"\x08" + b"\xff" * 9 + b"\x01" + ED25519[2:],
        b"\x08" + b"\xff" * 10 + ED25519[2:],
        b"\x08\0" + ED25519[2:],
        b"\x08\x03" + ED25519[2:],
        b"\x0a\x01\x01" + ED25519[2:],  # the type as bytes
        ED25519[:-1],
        ED25519 + b"\x12",
        ED25519[:-1] + b"\0\0",
        b"\x08\x01\x12\x7f" + bytes(10),
        b"\x08\0\x12" + varint.encode(10**6) + bytes(10**6),
    ],
)
def test_messages_that_are_no_key(message: bytes) -> None:
    with pytest.raises(DecodeError):
        PublicKey.decode(message, CRYPTO)
    with pytest.raises(DecodeError):
        PrivateKey.decode(message, CRYPTO)


def test_a_key_of_another_kind() -> None:
    for kind in (0, 2, 3):
        with pytest.raises(DecodeError, match=f"not a public {KeyType(kind).name} key"):
            PublicKey.decode(bytes((8, kind)) + ED25519[2:], CRYPTO)


@pytest.mark.parametrize("key", KEYS[:3], ids=IDS[:3])
def test_every_cut_is_refused(key: dict[str, str]) -> None:
    for name, cls in (("public", PublicKey), ("private", PrivateKey)):
        whole = bytes.fromhex(key[name])
        for size in range(len(whole)):
            with pytest.raises(DecodeError):
                cls.decode(whole[:size], CRYPTO)


@settings(deadline=None)
@given(st.binary(max_size=100))
def test_garbage_is_refused(data: bytes) -> None:
    for cls in (PublicKey, PrivateKey):
        for message in (data, b"\x08\x01\x12\x20" + data, b"\x08\x02\x12\x21\x02" + data):
            try:
                key = cls.decode(message, CRYPTO)
            except DecodeError:
                continue
            assert cls.decode(key.encode(), CRYPTO).peer_id == key.peer_id


def test_row_14_bad_signatures(keys: list[PrivateKey]) -> None:
    for key in keys:
        good = key.sign(b"m")
        for bit in range(0, 8 * len(good), 1 if len(good) == 64 else 37):
            bad = bytearray(good)
            bad[bit // 8] ^= 1 << bit % 8
            assert key.public.verify(bytes(bad), b"m") is False
        for bad in (b"", bytes(63), bytes(64), bytes(65), good[:-1], good + b"\0", b"\xa5" * 64):
            assert key.public.verify(bad, b"m") is False


def test_row_21_a_public_half_of_another_key_is_refused() -> None:
    seed = bytes(range(32))
    public = PrivateKey.generate(CRYPTO, lambda n: seed).public.data
    other = ED25519[4:]
    good = b"\x08\x01\x12\x40" + seed + public
    assert PrivateKey.decode(good, CRYPTO).public.data == public
    with pytest.raises(DecodeError):
        PrivateKey.decode(good[:-32] + other, CRYPTO)
    with pytest.raises(DecodeError):
        PrivateKey.decode(b"\x08\x01\x12\x60" + seed + public + other, CRYPTO)


def spellings(secret: bytes) -> list[str]:
    """How ten bytes from the middle of a secret could show up in text."""
    middle = len(secret) // 2
    part = secret[middle : middle + 10]
    return [
        part.hex(),
        part.hex().upper(),
        part.hex(" "),
        repr(part)[2:-1],
        str(list(part))[1:-1],
        base64.b64encode(secret).decode()[middle : middle + 12],
        base64.urlsafe_b64encode(secret).decode()[middle : middle + 12],
        str(int.from_bytes(secret, "big"))[:20],
    ]


def test_row_39_secrets_are_not_in_any_text(
    keys: list[PrivateKey], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    texts: list[str] = []
    secrets: list[str] = []
    for key in keys:
        secret = key.encode()
        secret = secret[4:36] if key.kind == KeyType.ED25519 else secret[-len(secret) * 3 // 4 :]
        secrets += spellings(secret)
        texts += [repr(key), str(key), f"{key}", f"{[key]}", "%s %r" % (key, {1: key})]  # noqa: UP031
        try:
            key.sign("no bytes")  # type: ignore[arg-type]
        except TypeError as error:
            logging.exception("cannot sign with %s and %r", key, key)
            lines = traceback.TracebackException.from_exception(error, capture_locals=True)
            # This function's own locals hold the secret; those of the code under test must not.
            lines.stack.pop(0)
            texts += list(lines.format())
        message = key.encode()
        another = bytes((8, (key.kind + 1) % 4)) + message[2:]
        for broken in (message[:-1], message + b"\x12\x03abc", another):
            with pytest.raises(DecodeError) as caught:
                PrivateKey.decode(broken, CRYPTO)
            texts += [str(caught.value), repr(caught.value)]
            texts += traceback.format_exception(caught.value)
        assert repr(key) == f"<PrivateKey {key.kind.name} {key.peer_id}>"
    texts.append(caplog.text)
    assert "cannot sign" in caplog.text
    everything = "\n".join(texts)
    assert "Traceback" in everything
    for secret in secrets:
        assert secret not in everything


def test_row_39_private_keys_are_neither_pickled_nor_copied(keys: list[PrivateKey]) -> None:
    for key in keys:
        for copier in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="pickled nor copied"):
                copier(key)
        with pytest.raises(TypeError):
            vars(key)
