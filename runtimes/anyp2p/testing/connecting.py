"""Listening, dialing, and every way in which a dial fails."""

import errno
import socket
from functools import partial

from anyp2p_core.errors import DialError, ListenError, LocalError
from anyp2p_core.limits import Limits
from anyp2p_core.multiaddr import Multiaddr

from .kit import LOOPBACK, Kit, closed_port, full_backlog, silent_listener


async def connects(kit: Kit) -> None:
    """Both ends know each other, and connecting again changes nothing."""
    async with kit.pair() as pair:
        assert pair.peer == pair.server.peer_id
        assert pair.client.peers == [pair.peer]
        await kit.eventually(
            lambda: pair.server.peers == [pair.client.peer_id], "the listener does not know us"
        )
        assert await pair.client.connect(pair.server.addresses[0]) == pair.peer
        assert len(pair.client.node.connections()) == 1
        info = await pair.client.identify(pair.peer)
        assert info.agent.startswith("anyp2p/")
        result = await pair.client.perf(pair.peer, 100_000, 50_000)
        assert (result.uploaded, result.downloaded) == (100_000, 50_000)
        [connection] = pair.client.node.connections()
        assert connection.remote == pair.server.node.addresses[0]
        assert connection.local.get("ip4") == "127.0.0.1"
        await pair.works()


async def reconnects(kit: Kit) -> None:
    """After a disconnect both ends forget each other, and can meet again."""
    async with kit.pair() as pair:
        for _ in range(3):
            await pair.client.disconnect(pair.peer)
            assert pair.client.peers == []
            await kit.eventually(lambda: not pair.server.peers, "the listener still knows us")
            await pair.client.connect(pair.server.addresses[0])
            await pair.works()


async def listens_on_real_addresses(kit: Kit) -> None:
    """Port 0 becomes a port; several addresses are all reachable, at once and later."""
    async with kit.host(listen=[LOOPBACK, LOOPBACK]) as server, kit.host() as client:
        [more] = await server.listen(LOOPBACK)
        assert len(set(server.addresses)) == 3
        assert more in server.addresses
        for address in server.addresses:
            assert address.get("tcp") not in (None, "0")
            assert address.get("p2p") == str(server.peer_id)
            assert await client.connect(address) == server.peer_id
            await client.disconnect(server.peer_id)


async def listens_on_ipv6(kit: Kit) -> None:
    """The same on IPv6, where there is any."""
    if not _has_ipv6():
        return
    async with kit.host(listen=["/ip6/::1/tcp/0"]) as server, kit.host() as client:
        assert server.addresses[0].get("ip6") == "::1"
        await client.ping(await client.connect(server.addresses[0]))


async def listen_refuses_an_address_in_use(kit: Kit) -> None:
    """ListenError names the address, and the host goes on."""
    async with kit.pair() as pair:
        taken = pair.server.node.addresses[0]
        error = await kit.fails(ListenError, lambda: pair.client.listen(taken))
        assert error.errno == errno.EADDRINUSE
        assert str(taken) in str(error)
        await kit.fails(ListenError, lambda: pair.client.listen("/ip4/198.51.100.1/tcp/0"))
        await kit.fails(LocalError, lambda: pair.client.listen("/ip4/127.0.0.1/udp/1"))
        await pair.works()
        await pair.client.listen(LOOPBACK)


async def start_fails_when_it_cannot_listen(kit: Kit) -> None:
    """The same from the constructor's ``listen``: nothing of the host is left."""
    async with kit.server() as server:

        async def start() -> None:
            async with kit.host(listen=[LOOPBACK, server.node.addresses[0]]):
                raise AssertionError("it started")

        error = await kit.fails(ListenError, start)
        assert error.errno == errno.EADDRINUSE


async def dial_refused(kit: Kit) -> None:
    """DialError, which names the address and the reason."""
    address = closed_port()
    async with kit.pair() as pair:
        error = await kit.fails(DialError, lambda: pair.client.connect(address))
        assert str(address) in str(error)
        assert "refused" in str(error).lower() or "connect call failed" in str(error).lower()
        assert error.attempts[0][0] == str(address)
        await pair.works()


async def dial_times_out(kit: Kit) -> None:
    """Where nobody answers the dial ends with ``dial_timeout``, and leaves nothing behind."""
    with full_backlog() as address:
        async with kit.host(limits=Limits(dial_timeout=0.15)) as host:
            error = await kit.fails(DialError, lambda: host.connect(address))
            assert "no answer within 0.15 s" in str(error)
            await kit.nobody_waits(host)


async def upgrade_times_out(kit: Kit) -> None:
    """The same where a connection is made and nothing is said on it."""
    with silent_listener() as address:
        limits = Limits(dial_timeout=0.15, upgrade_timeout=10.0)
        async with kit.host(limits=limits) as host:
            error = await kit.fails(DialError, lambda: host.connect(address))
            assert "no answer within 0.15 s" in str(error)
        limits = Limits(dial_timeout=10.0, upgrade_timeout=0.15)
        async with kit.host(limits=limits) as host:
            error = await kit.fails(DialError, lambda: host.connect(address))
            assert "negotiation took longer than 0.15 s" in str(error)


async def dial_finds_somebody_else(kit: Kit) -> None:
    """A peer that proves another identity is not connected to."""
    async with kit.pair() as pair, kit.host() as other:
        wrong = pair.server.node.addresses[0].encapsulate(Multiaddr(f"/p2p/{other.peer_id}"))
        error = await kit.fails(DialError, lambda: pair.client.connect(wrong))
        assert str(pair.peer) in str(error) and str(other.peer_id) in str(error)
        assert pair.client.peers == [pair.peer]
        await pair.works()


async def dial_unreachable_network(kit: Kit) -> None:
    """No route: an error at once, not after the timeout."""
    async with kit.host() as host:
        before = kit.base(host).now()
        error = await kit.fails(DialError, lambda: host.connect("/ip4/255.255.255.255/tcp/1"))
        assert kit.base(host).now() - before < 10
        assert "not connected" not in str(error)


async def dial_strange_addresses(kit: Kit) -> None:
    """What is no TCP address fails that dial and nothing else."""
    async with kit.pair() as pair:
        for text in ("/ip4/127.0.0.1/udp/1", "/ip4/127.0.0.1/tcp/1/tls", "/memory/1"):
            error = await kit.fails(DialError, partial(pair.client.connect, text))
            assert text in str(error)
        await pair.works()


async def dial_names(kit: Kit) -> None:
    """Names are looked up without blocking the loop; one that does not resolve fails its dial."""
    async with kit.pair(limits=Limits(dial_timeout=10.0)) as pair:
        port = pair.server.addresses[0].get("tcp")
        await pair.client.disconnect(pair.peer)
        for name in ("dns", "dns4"):
            named = f"/{name}/localhost/tcp/{port}/p2p/{pair.peer}"
            assert await pair.client.connect(named) == pair.peer
            await pair.client.disconnect(pair.peer)
        unknown = "/dns4/does-not-exist.invalid/tcp/1"
        impossible = "/dns4/" + "a" * 64 + ".invalid/tcp/1"
        await pair.client.connect(pair.server.addresses[0])
        pings = 0

        async def ping() -> None:
            nonlocal pings
            while pings < 10:
                await pair.client.ping(pair.peer)
                pings += 1

        async def dial() -> None:
            error = await kit.fails(DialError, lambda: pair.client.connect(unknown))
            assert unknown in str(error)
            error = await kit.fails(DialError, lambda: pair.client.connect(impossible))
            assert impossible in str(error)

        await kit.loop.together(ping, dial)
        await pair.works()


dial_names.leaves_threads = True  # type: ignore[attr-defined]


async def dial_tries_the_next_address(kit: Kit) -> None:
    """One good address among bad ones is enough."""
    async with kit.pair() as pair:
        await pair.client.disconnect(pair.peer)
        good = pair.server.addresses[0]
        with full_backlog() as nowhere:
            assert await pair.client.connect(closed_port(), nowhere, good) == pair.peer
        await pair.works()


async def dials_are_shared(kit: Kit) -> None:
    """Everyone who connects to the same peer waits for the same connection."""
    async with kit.server() as server, kit.host() as client:
        address = server.addresses[0]
        found = await kit.loop.together(*[lambda: client.connect(address)] * 10)
        assert found == [server.peer_id] * 10
        assert len(client.node.connections()) == 1


async def both_dial_at_once(kit: Kit) -> None:
    """Two hosts that dial each other are both connected, by one connection or two."""
    async with kit.server() as one, kit.server() as other:
        await kit.loop.together(
            lambda: one.connect(other.addresses[0]), lambda: other.connect(one.addresses[0])
        )
        assert await one.ping(other.peer_id) >= 0
        assert await other.ping(one.peer_id) >= 0


async def accepts_strangers(kit: Kit) -> None:
    """Whoever connects and leaves, or talks nonsense, costs nobody else anything."""
    async with kit.pair() as pair:
        port = int(pair.server.addresses[0].get("tcp"))
        for words in (b"", b"\n", b"GET / HTTP/1.1\r\n\r\n", bytes(100_000)):
            with socket.create_connection(("127.0.0.1", port)) as sock:
                sock.setblocking(False)
                if words:
                    sock.send(words)
            await pair.works()
        await kit.eventually(
            lambda: len(pair.server.node._connections) == 1, "a stranger's connection is still open"
        )


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


CHECKS = (
    connects,
    reconnects,
    listens_on_real_addresses,
    listens_on_ipv6,
    listen_refuses_an_address_in_use,
    start_fails_when_it_cannot_listen,
    dial_refused,
    dial_times_out,
    upgrade_times_out,
    dial_finds_somebody_else,
    dial_unreachable_network,
    dial_strange_addresses,
    dial_names,
    dial_tries_the_next_address,
    dials_are_shared,
    both_dial_at_once,
    accepts_strangers,
)
