"""Keys of the simulator: guessable, marked, and of no use outside of it."""

import asyncio
from pathlib import Path

import pytest

from anyp2p import keyfile
from anyp2p.asyncio import Host as RealHost
from anyp2p.providers.crypto import Cryptography
from anyp2p.providers.entropy import OsEntropy
from anyp2p.sim import SeededEntropy, World, crypto as crypto_module
from anyp2p.sim.crypto import NullCrypto, RememberingCrypto
from anyp2p_core.crypto import Entropy, KeyType, Signer, Verifier
from anyp2p_core.errors import DecodeError, LocalError
from anyp2p_core.keys import PrivateKey, PublicKey


@pytest.mark.parametrize("security", ["null", "noise"])
def test_real_hosts_refuse_simulated_keys(security: str, tmp_path: Path) -> None:
    world = World(seed=1, security=security)  # type: ignore[arg-type]
    key = world.host().machine.key
    assert key.simulated
    with pytest.raises(LocalError, match="guessable"):
        RealHost(key)

    async def start() -> None:
        async with RealHost(key):
            pass

    with pytest.raises(LocalError, match="guessable"):
        asyncio.run(start())
    with pytest.raises(LocalError):
        keyfile.save(str(tmp_path / "key"), key)
    assert not (tmp_path / "key").exists()


def test_keys_follow_from_the_seed_and_the_name() -> None:
    first, same, other = World(seed=1), World(seed=1), World(seed=2)
    assert first.host(name="x").peer_id == same.host(name="x").peer_id
    assert first.host(name="y").peer_id != same.host(name="z").peer_id
    assert other.host(name="x").peer_id != first.machines[0].key.peer_id


def test_a_key_of_ones_own() -> None:
    key = PrivateKey.generate(Cryptography(), OsEntropy())
    world = World(security="noise")
    host = world.host(key, listen=["/ip4/0.0.0.0/tcp/1"])
    other = world.host()
    assert host.peer_id == key.peer_id and not host.machine.key.simulated
    beside = world.host(
        world.crypto and PrivateKey.generate(world.crypto, OsEntropy()), beside=host
    )
    assert beside.peer_id not in (host.peer_id, other.peer_id)

    async def main() -> None:
        async with host, other:
            assert await other.connect(host.addresses[0]) == key.peer_id

    world.run_task(world.spawn(main), 10.0)


def test_security_that_is_none() -> None:
    with pytest.raises(LocalError, match="'null' or 'noise'"):
        World(security="tls")  # type: ignore[arg-type]


# Null security.


def test_null_keys() -> None:
    crypto = NullCrypto()
    key = PrivateKey.generate(crypto, SeededEntropy(b"seed"))
    assert key.kind == KeyType.ED25519 and key.simulated
    assert str(key.peer_id).startswith("12D3KooW")
    signature = key.sign(b"message")
    assert len(signature) == 64
    public = PublicKey.decode(key.public.encode(), crypto)
    assert public == key.public
    assert public.verify(signature, b"message")
    assert not public.verify(signature, b"massage")
    assert not public.verify(bytes(64), b"message") and not public.verify(b"", b"message")
    other = PrivateKey.generate(crypto, SeededEntropy(b"other"))
    assert not other.public.verify(signature, b"message")
    again = PrivateKey.decode(key.encode(), crypto)
    assert again.public == key.public and again.sign(b"message") == signature


def test_null_crypto_offers_nothing_else() -> None:
    crypto = NullCrypto()
    for refused in (crypto.chacha20poly1305, crypto.x25519):
        with pytest.raises(LocalError, match="no ciphers"):
            refused(bytes(32))
    with pytest.raises(LocalError, match="Ed25519"):
        crypto.generate(KeyType.RSA, SeededEntropy(b""))
    for kind, size in ((KeyType.RSA, 32), (KeyType.ED25519, 31), (KeyType.ED25519, 33)):
        with pytest.raises(DecodeError):
            crypto.load_public(kind, bytes(size))
    good = crypto.generate(KeyType.ED25519, SeededEntropy(b"")).private
    for kind, data in ((KeyType.RSA, good), (KeyType.ED25519, bytes(64)), (KeyType.ED25519, b"")):
        with pytest.raises(DecodeError):
            crypto.load_private(kind, data)


def test_real_public_keys_are_not_signed_by_pretence() -> None:
    """A peer with a real key in a world of null security is known, and its signatures are not."""
    key = PrivateKey.generate(Cryptography(), SeededEntropy(b"seed"))
    world = World()
    host = world.host(key, listen=["/ip4/0.0.0.0/tcp/1"])
    other = world.host()

    async def main() -> None:
        async with host, other:
            info = await other.identify(host.addresses[0])
            assert info.peer == key.peer_id and not info.signed_record

    world.run_task(world.spawn(main), 10.0)


# Remembered signatures.


class Counting(Cryptography):
    """How often a signature was looked at, and a key loaded."""

    verified = 0
    loaded = 0

    def load_public(self, kind: KeyType, data: bytes) -> Verifier:
        self.loaded += 1
        counting, inner = self, super().load_public(kind, data)

        class Counted:
            def verify(self, signature: bytes, message: bytes) -> bool:
                counting.verified += 1
                return inner.verify(signature, message)

        return Counted()


def test_signatures_are_verified_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting()
    crypto = RememberingCrypto(counting)
    entropy: Entropy = SeededEntropy(b"seed")
    signers: list[Signer] = [crypto.generate(KeyType.ED25519, entropy) for _ in range(3)]
    for _ in range(5):
        for signer in signers:
            verifier = crypto.load_public(KeyType.ED25519, signer.public)
            signature = signer.sign(b"message")
            assert verifier.verify(signature, b"message")
            assert not verifier.verify(signature, b"massage")
    assert counting.loaded == 3 and counting.verified == 6
    long = bytes(10_000)
    for _ in range(2):
        assert verifier.verify(signers[2].sign(long), long)
    assert counting.verified == 8
    monkeypatch.setattr(crypto_module, "MAX_REMEMBERED", 4)
    for number in range(20):
        verifier.verify(bytes(64), bytes([number]))
    assert len(crypto._answers) == 6  # it does not grow
    loaded = crypto.load_private(KeyType.ED25519, signers[0].private)
    assert loaded.public == signers[0].public
    with pytest.raises(DecodeError):
        crypto.load_public(KeyType.ED25519, b"short")


def test_a_whole_noise_world_verifies_little() -> None:
    world = World(seed=1, security="noise")
    counting = Counting()
    world.crypto = RememberingCrypto(counting)
    hub = world.host(listen=["/ip4/0.0.0.0/tcp/1"])
    hosts = [world.host() for _ in range(10)]

    async def main() -> None:
        await hub.start()
        for host in hosts:
            await host.start()
            await host.connect(hub.addresses[0])
        await world.sleep(5.0)
        for host in hosts:
            assert (await host.identify(hub.peer_id)).signed_record

    world.run_task(world.spawn(main), 100.0)
    # Two of the hub, for noise and for its record; two of each of the others.
    assert counting.verified == 22
