"""``host.dht`` on every event loop: the same commands, cancelled everywhere, with their traces."""

import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from on_loops import RUNTIMES, Runtime

from anyp2p.dht import Dht, multihash_of, record_key, trace_of
from anyp2p.dht_keys import target_of
from anyp2p.testing import Kit
from anyp2p.testing.cancelling import everywhere
from anyp2p.testing.kit import LOOPBACK
from anyp2p_core import multihash, varint
from anyp2p_core.cid import CID, RAW
from anyp2p_core.errors import DecodeError, DialError, Error, LocalError
from anyp2p_core.events import PeerIdentified
from anyp2p_core.kad import messages
from anyp2p_core.kad.config import KadConfig
from anyp2p_core.kad.messages import LAN_PROTOCOL, PROTOCOL, Message, Type
from anyp2p_core.kad.query import State
from anyp2p_core.kad.service import Kad
from anyp2p_core.peer_id import PeerId

CONTENT = CID(1, RAW, multihash.sha2_256(b"some content"))
MISSING = multihash.sha2_256(b"nobody has this")


class LongestWins:
    """Any value is valid, and a longer one better."""

    def validate(self, key: bytes, value: bytes, wall: float) -> None:
        pass

    def select(self, key: bytes, values: Any) -> int:
        return max(range(len(values)), key=lambda index: len(values[index]))


def kad(**options: Any) -> Kad:
    return Kad(KadConfig(**options), validators={"v": LongestWins()})


class Network:
    """A first server, another one, and a client; both know of the first one only."""

    def __init__(self, kit: Kit) -> None:
        self.kit = kit
        self.hosts: list[Any] = []

    async def add(self, stack: AsyncExitStack, network: Any, **options: Any) -> Any:
        host = await stack.enter_async_context(
            self.kit.host(dht=network, listen=[LOOPBACK], **options)
        )
        self.hosts.append(host)
        return host

    def dht(self, host: Any) -> Dht:
        """The awaitable interface, also on gevent."""
        return self.kit.base(host).dht

    async def settled(self) -> None:
        """Nobody does or waits for anything."""
        for host in self.hosts:
            left = self.dht(host).kad._operations
            await self.kit.eventually(lambda left=left: not left, f"{left} go on")
            assert not self.dht(host)._events.searches
        await self.kit.nobody_waits(*self.hosts)


@asynccontextmanager
async def network(kit: Kit) -> AsyncIterator[tuple[Network, Any, Any, Any]]:
    net = Network(kit)
    async with AsyncExitStack() as stack:
        first = await net.add(stack, kad(server=True))
        known = tuple(first.addresses)
        server = await net.add(stack, kad(server=True, bootstrap=known))
        await kit.eventually(lambda: len(net.dht(first).table) == 1, "no table")
        client = await net.add(stack, kad(bootstrap=known))
        while await net.dht(client).bootstrap() < 2:
            pass
        await net.settled()
        yield net, first, server, client
        kit.no_internal_errors()


def on_every_loop(function: Callable[[Kit], Awaitable[None]]) -> Any:
    def test(runtime: Runtime) -> None:
        runtime.run(function)

    test.__doc__ = function.__doc__
    return pytest.mark.parametrize("runtime", RUNTIMES.values(), ids=list(RUNTIMES))(test)


@on_every_loop
async def test_all_commands(kit: Kit) -> None:
    async with network(kit) as (net, first, server, client):
        there, here = net.dht(server), net.dht(client)
        assert (there.server, there.mode, here.server, here.mode) == (
            True,
            "server",
            False,
            "client",
        )

        found = await here.find_peer(str(server.peer_id))
        assert found.connected and found.peer == server.peer_id
        assert found.addresses == tuple(server.node.addresses)

        closest = await here.closest_peers(CONTENT)
        assert {one.peer for one in closest.peers} == {first.peer_id, server.peer_id}
        assert [hop.state for hop in closest.trace] == [State.ANSWERED] * 2

        provided = await there.provide(CONTENT)
        assert provided.holders == (first.peer_id,) and not provided.failed
        search = here.find_providers(str(CONTENT))
        assert not search.over
        providers = [provider async for provider in search]
        assert [one.peer for one in providers] == [server.peer_id]
        assert providers[0].addresses == tuple(server.node.addresses)
        assert search.over and search.result is not None and search.result.found == 1
        assert search.trace == search.result.trace
        assert {hop.peer for hop in search.trace} == {first.peer_id, server.peer_id}

        silent = await there.provide(MISSING, announce=False)
        assert silent.holders == ()
        asked = here.find_providers(MISSING)
        assert [one.peer async for one in asked] == [server.peer_id]
        there.stop_providing(MISSING)
        assert [one async for one in here.find_providers(MISSING)] == []

        await first_value(net, first, b"older")
        put = await there.put("/v/name", b"the newest")
        assert put.holders == (first.peer_id,) and len(put.trace) == 1
        got = await here.get(b"/v/name")
        assert got.value == b"the newest" and len(got.trace) == 2
        values = here.search("/v/name")
        assert [value async for value in values][-1] == b"the newest"
        assert values.result is not None and values.result.value == b"the newest"

        assert await here.bootstrap() == 2 == here.health.size == len(here.table)
        assert "client, 2 peers" in repr(here)
        await net.settled()


async def first_value(net: Network, host: Any, value: bytes) -> None:
    await net.dht(host).put("/v/name", value)


@on_every_loop
async def test_failures_say_what_is_wrong_and_whom_was_asked(kit: Kit) -> None:
    async with network(kit) as (net, first, server, client):
        here = net.dht(client)
        error = await kit.fails(DialError, lambda: here.get("/v/missing"))
        assert str(error) == "nobody who was asked has a valid value"
        assert {hop.peer for hop in trace_of(error)} == {first.peer_id, server.peer_id}
        for command, text in (
            (lambda: here.get("/unknown/x"), "no validator"),
            (lambda: here.put("/unknown/x", b""), "no validator"),
            (lambda: here.put("/v/x", bytes(17 << 10)), "16384"),
            (lambda: here.find_peer(client.peer_id), "itself"),
            (lambda: here.provide(b""), "key"),
        ):
            wrong = await kit.fails(LocalError, command)
            assert text in str(wrong)
            assert trace_of(wrong) == ()
        await net.settled()
    await kit.fails(LocalError, lambda: here.get("/v/x"))
    with pytest.raises(LocalError, match="is closed"):
        here.find_providers(CONTENT)
    async with kit.host(dht=KadConfig()) as alone:
        error = await kit.fails(DialError, lambda: kit.base(alone).dht.closest_peers(b"x"))
        assert "name a bootstrap peer" in str(error) and trace_of(error) == ()
        search = kit.base(alone).dht.find_providers(MISSING)
        assert "name a bootstrap peer" in str(await kit.fails(DialError, search.__anext__))
        await kit.fails(StopAsyncIteration, search.__anext__)
        assert "listen first" in str(
            await kit.fails(LocalError, lambda: kit.base(alone).dht.provide(MISSING))
        )
        done = await kit.base(alone).dht.provide(CONTENT, announce=False)
        assert done.holders == ()


COMMANDS: dict[str, Callable[[Dht, Any], Awaitable[Any]]] = {
    "find_peer": lambda dht, peer: _unless(dht.find_peer(peer)),
    "closest_peers": lambda dht, peer: dht.closest_peers(b"key"),
    "provide": lambda dht, peer: dht.provide(CONTENT),
    "put": lambda dht, peer: dht.put("/v/own", b"value"),
    "get": lambda dht, peer: dht.get("/v/name"),
    "bootstrap": lambda dht, peer: dht.bootstrap(),
    "find_providers": lambda dht, peer: _all(dht.find_providers(CONTENT)),
    "search": lambda dht, peer: _all(dht.search("/v/name")),
}


async def _all(search: Any) -> None:
    assert [one async for one in search]


async def _unless(command: Awaitable[Any]) -> None:
    with pytest.raises(DialError, match="knows where"):
        await command


@pytest.mark.parametrize("runtime", RUNTIMES.values(), ids=list(RUNTIMES))
def test_cancelled_at_every_suspension(runtime: Runtime) -> None:
    """Nothing of a cancelled command goes on, and the next one works."""

    async def main(kit: Kit) -> None:
        async with network(kit) as (net, first, server, client):
            await net.dht(first).put("/v/name", b"value")
            await net.dht(server).provide(CONTENT)
            here, stranger = net.dht(client), kit.host().peer_id

            async def after() -> None:
                await net.settled()
                assert (await here.get("/v/name")).value == b"value"

            for name, command in COMMANDS.items():

                async def operation(command: Any = command) -> None:
                    await command(here, stranger)

                assert await everywhere(kit, operation, after) >= 1, name

    runtime.run(main)


@asynccontextmanager
async def half_deaf(kit: Kit) -> AsyncIterator[tuple[Network, Any, Any]]:
    """A client whose only peer knows of no closer ones and answers nothing else."""
    async with AsyncExitStack() as stack:
        peer = await stack.enter_async_context(kit.server())

        async def serve(stream: Any) -> None:
            frames = varint.Delimited(1 << 20)
            while data := await stream.read():
                for frame in frames.receive(data):
                    if messages.decode(frame).type == Type.FIND_NODE:
                        answer = messages.MESSAGE.encode(Message(Type.FIND_NODE))
                        await stream.write(varint.delimited(answer))

        peer.set_handler(PROTOCOL, serve)
        net = Network(kit)
        client = await net.add(stack, kad(bootstrap=tuple(peer.addresses)))
        await kit.eventually(lambda: len(net.dht(client).table) == 1, "no table")
        await net.settled()
        yield net, peer, client
        kit.no_internal_errors()


@on_every_loop
async def test_a_search_ends_when_it_is_left(kit: Kit) -> None:
    async with half_deaf(kit) as (net, peer, client):
        dht = net.dht(client)
        here = kit.host().peer_id
        dht.kad.store.add_provider(MISSING, here, (), kit.base(client)._wall())
        async with dht.find_providers(MISSING) as search:
            async for provider in search:
                assert provider.peer == here
                break
            assert not search.over and dht.kad._operations
            assert [hop.state for hop in search.trace] == [State.WAITING]
        assert search.over and [hop.peer for hop in search.trace] == [peer.peer_id]
        await net.settled()
        await kit.fails(StopAsyncIteration, search.__anext__)
        await search.aclose()

        async for _ in dht.find_providers(MISSING):  # nobody holds it any more
            break
        gc.collect()
        other = dht.find_providers(MISSING)
        assert len(dht._events.searches) == 1 == len(dht.kad._operations)
        await other.aclose()
        await net.settled()

        waiting = dht.find_providers(MISSING)

        async def wait_for_more() -> None:
            async for _ in waiting:
                pass

        # Waits for an answer that never comes.
        assert await kit.loop.cancel_at(1, wait_for_more, late=False)
        assert waiting.over and not dht.kad._operations
        assert [hop.peer for hop in waiting.trace] == [peer.peer_id]
        await net.settled()


@on_every_loop
async def test_closing_the_host_ends_whoever_waits(kit: Kit) -> None:
    async with half_deaf(kit) as (net, _, client):
        dht = net.dht(client)
        errors: list[Exception] = []

        def waiting(command: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[None]]:
            async def wait() -> None:
                errors.append(await kit.fails(Error, command))

            return wait

        search = dht.find_providers(MISSING)

        async def close() -> None:
            await kit.eventually(lambda: len(kit.base(client)._waiters) == 2, "nobody waits")
            await client.close()

        await kit.loop.together(waiting(lambda: dht.get("/v/x")), waiting(search.__anext__), close)
        assert len(errors) == 2
        assert all(isinstance(error, ConnectionError) for error in errors), errors
        assert search.over


@on_every_loop
async def test_several_networks(kit: Kit) -> None:
    lan = KadConfig(protocol=LAN_PROTOCOL, server=True)
    async with kit.host(dht=[KadConfig(server=True), lan], listen=[LOOPBACK]) as server:
        known = tuple(server.addresses)
        other = KadConfig(protocol=LAN_PROTOCOL, bootstrap=known)
        async with kit.host(dht=(KadConfig(bootstrap=known), other)) as client:
            base = kit.base(client)
            assert len(base.dhts) == 2 and base.dht is base.dhts[0]
            for dht in base.dhts:
                assert await dht.bootstrap() == 1
            protocols = [dht.kad.config.protocol for dht in base.dhts]
            assert protocols == [PROTOCOL, LAN_PROTOCOL]
        assert {PROTOCOL, LAN_PROTOCOL} <= set(server.node.protocols)


@on_every_loop
async def test_events_can_be_watched(kit: Kit) -> None:
    """Whoever watches hears of an event after the host, and does no harm."""
    async with kit.server() as server, kit.host() as client:
        base, heard = kit.base(client), []
        base.watch(PeerIdentified, heard.append)
        base.watch(PeerIdentified, lambda event: heard.append(event.info))
        info = await client.identify(server.addresses[0])
        assert heard == [heard[0], info] and heard[0].peer == server.peer_id


def test_without_a_dht() -> None:
    from anyp2p.asyncio import Host

    host = Host()
    assert host.dhts == ()
    with pytest.raises(LocalError, match=r"make it with Host\(dht=KadConfig"):
        host.dht  # noqa: B018
    with pytest.raises(LocalError, match="dht takes KadConfig or Kad"):
        Host(dht=["/ipfs/kad/1.0.0"])  # type: ignore[list-item]
    used = Kad(KadConfig())
    assert Host(dht=used).dht.kad is used
    with pytest.raises(LocalError, match="another host's"):
        Host(dht=used)


def test_blocking_on_gevent() -> None:
    pytest.importorskip("gevent")
    from anyp2p.gevent import Host

    listen = [LOOPBACK]
    with pytest.raises(LocalError, match="is in no DHT"):
        Host().dht  # noqa: B018
    with Host(listen=listen, dht=kad(server=True)) as first:
        known = tuple(first.addresses)
        with Host(listen=listen, dht=kad(server=True, bootstrap=known)) as server:
            assert server.dht.bootstrap() == 1
            with Host(dht=kad(bootstrap=known)) as client:
                while client.dht.bootstrap() < 2:
                    pass
                server.dht.put("/v/x", b"1")
                assert client.dht.get("/v/x", quorum=1).value == b"1"
                search = client.dht.search("/v/x")
                assert list(search) == [b"1"] and search.over
                assert search.result is not None and search.trace == search.result.trace
                server.dht.provide(CONTENT)
                with client.dht.find_providers(CONTENT) as found:
                    assert next(found).peer == server.peer_id
                found.close()
                assert client.dht.find_peer(server.peer_id).connected
                assert len(client.dht.closest_peers(CONTENT).peers) == 2
                assert client.dht.health.size == 2 == len(client.dht.table)
                assert (client.dht.mode, client.dht.server) == ("client", False)
                server.dht.stop_providing(CONTENT)
                assert "client, 2 peers" in repr(client.dht)


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (CONTENT, CONTENT.multihash),
        (str(CONTENT), CONTENT.multihash),
        (bytes(CONTENT), CONTENT.multihash),
        (CONTENT.multihash, CONTENT.multihash),
        (multihash.decode(CONTENT.multihash), CONTENT.multihash),
        (CONTENT.with_base("z"), CONTENT.multihash),
        ("QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n", multihash.sha2_256(b"")),
        (b"\x01 is no CID", b"\x01 is no CID"),
    ],
)
def test_content_goes_as_its_multihash(content: Any, key: bytes) -> None:
    assert multihash_of(content) == key == target_of(content)


def test_keys_of_values() -> None:
    peer = PeerId.parse(ED25519)
    for text in (ED25519, peer.to_cid_text()):
        assert record_key(f"/ipns/{text}") == b"/ipns/" + bytes(peer)
        assert record_key(f"/pk/{text}") == b"/pk/" + bytes(peer)
    assert record_key(f"/pk/{RSA}") == b"/pk/" + bytes(PeerId.parse(RSA))
    assert record_key("/app/na/me") == b"/app/na/me" == record_key(b"/app/na/me")
    assert target_of(peer) == bytes(peer) == target_of(ED25519) == target_of(peer.to_cid_text())
    assert target_of("/app/name") == b"/app/name"
    for wrong in ("", "/", "app/x", "//x", "/app", "/app/"):
        with pytest.raises(LocalError, match="no key of a value"):
            record_key(wrong)
    with pytest.raises(DecodeError):
        record_key("/ipns/nonsense!")
    with pytest.raises(DecodeError):
        multihash_of("nonsense")


ED25519 = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"
RSA = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
