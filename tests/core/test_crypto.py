"""anyp2p_core.crypto: the interfaces, and that the provider we ship has all of them."""

import inspect

import pytest

from anyp2p.providers.crypto import Cryptography
from anyp2p.providers.entropy import OsChoice, OsEntropy
from anyp2p_core import crypto
from anyp2p_core.crypto import KeyType, is_simulated


def test_key_types_are_numbered_as_on_the_wire() -> None:
    assert [(kind.name, kind.value) for kind in KeyType] == [
        ("RSA", 0),
        ("ED25519", 1),
        ("SECP256K1", 2),
        ("ECDSA", 3),
    ]


class _Declares:
    def __init__(self, simulated: object) -> None:
        self.simulated = simulated

    def __call__(self, n: int) -> bytes:
        return bytes(n)


def test_entropy_is_simulated_unless_it_says_that_it_is_not() -> None:
    assert not is_simulated(OsEntropy())
    assert not is_simulated(_Declares(False))
    assert is_simulated(_Declares(True))
    assert is_simulated(_Declares(None))
    assert is_simulated(_Declares(0))
    assert is_simulated(lambda n: bytes(n))


def _methods(interface: type) -> list[str]:
    return [name for name in vars(interface) if not name.startswith("_") or name == "__call__"]


@pytest.mark.parametrize(
    ("interface", "ours"),
    [
        (crypto.Crypto, Cryptography()),
        (crypto.Entropy, OsEntropy()),
        (crypto.Choice, OsChoice()),
        (crypto.Aead, Cryptography().chacha20poly1305(bytes(32))),
        (crypto.X25519, Cryptography().x25519(bytes(range(32)))),
        (crypto.Signer, Cryptography().generate(KeyType.ED25519, OsEntropy())),
        (crypto.Verifier, Cryptography().load_public(KeyType.ED25519, b"\x02" * 32)),
    ],
)
def test_our_provider_has_every_method_with_the_same_arguments(
    interface: type, ours: object
) -> None:
    assert _methods(interface)
    for name in _methods(interface):
        theirs, mine = getattr(interface, name), getattr(ours, name)
        if callable(theirs):
            wanted = [p for p in inspect.signature(theirs).parameters if p != "self"]
            assert list(inspect.signature(mine).parameters) == wanted
