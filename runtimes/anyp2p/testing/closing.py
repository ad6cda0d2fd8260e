"""How connections and hosts end, in order and without."""

import socket
from contextlib import suppress
from functools import partial
from typing import Any

from anyp2p_core.errors import ConnectionLost, DialError, Error, LocalError
from anyp2p_core.limits import Limits

from .kit import LOOPBACK, Kit, full_backlog, silent_listener

BLOCK = bytes(range(256)) * 256


async def close_delivers_what_was_written(kit: Kit) -> None:
    """Closing a stream and then the host right after a write: the peer gets every byte."""
    async with kit.server() as server:
        arrived: list[int] = []
        sizes: list[int] = []

        async def collect(stream: Any) -> None:
            arrived.append(0)
            async for chunk in stream:
                arrived[-1] += len(chunk)

        server.set_handler("/collect/1", collect)
        for blocks in (1, 32):
            async with kit.host() as client:
                peer = await client.connect(server.addresses[0])
                stream = await client.open_stream(peer, "/collect/1")
                for _ in range(blocks):
                    await stream.write(BLOCK)
                await stream.close()
            sizes.append(blocks * len(BLOCK))
            await kit.eventually(lambda: arrived == sizes, f"not all arrived: {arrived}, {sizes}")
        await kit.nobody_waits(server)


async def close_delivers_through_a_full_socket(kit: Kit) -> None:
    """The same when the socket is full at the time: what the runtime holds back arrives too."""
    async with kit.pair() as pair:
        arrived: list[int] = []

        async def collect(stream: Any) -> None:
            arrived.append(sum([len(chunk) async for chunk in stream]))

        await pair.serve("/collect/1", collect)
        server = kit.base(pair.server)
        conn = server.node.connections()[0].id
        server._pause_reading(conn)
        [connection] = pair.client.node.connections()
        streams = 0
        while connection.blocked_since is None or connection.unsent() < 1_000_000:
            stream = await pair.open("/collect/1")
            await stream.write(BLOCK * 3)
            await stream.close()
            await kit.loop.sleep(0)
            streams += 1
            assert streams < 200, "the socket never filled up"

        async def resume() -> None:
            await kit.eventually(lambda: connection.closing, "it does not close")
            server._resume_reading(conn)

        await kit.loop.together(resume, pair.client.close)
        await kit.eventually(lambda: not pair.server.peers, "the connection did not end")
        await kit.eventually(lambda: len(arrived) == streams, f"{len(arrived)} of {streams} came")
        assert set(arrived) == {3 * len(BLOCK)}


async def closing_a_host_ends_its_streams(kit: Kit) -> None:
    """The peer reads what was written, then the end; it can write no more."""
    async with kit.pair() as pair:

        async def greet(stream: Any) -> None:
            greeted.append(await stream.read())
            await stream.write(b"hello")
            await stream.read()

        greeted: list[bytes] = []
        pair.server.set_handler("/greet/1", greet)
        stream = await pair.open("/greet/1")
        await stream.write(b"hi")
        await kit.eventually(lambda: greeted, "the handler did not start")
        await pair.server.close()
        assert await stream.readexactly(5) == b"hello"
        assert await stream.read() == b""
        await kit.eventually(lambda: not pair.client.peers, "the client still thinks of it")
        await kit.fails(Error, lambda: stream.write(b"x"))
        await kit.fails(DialError, lambda: pair.client.ping(pair.server.addresses[0]))
        await stream.close()


async def abrupt_end_breaks_everything(kit: Kit) -> None:
    """A connection that is cut: whoever reads, writes or waits for an answer gets an error."""
    for side in ("client", "server"):
        async with kit.pair() as pair:
            one = await pair.open()
            await one.write(b"kept")
            assert await one.readexactly(4) == b"kept"
            full = await pair.client.open_stream(pair.peer, "/never-read/1", "/echo/1.0.0")

            async def cut(side: str = side, pair: Any = pair) -> None:
                host = kit.base(getattr(pair, side))
                await kit.loop.sleep(0.02)
                host.node.abort(host.node.connections()[0].id, host.now())
                host.flush()

            async def read(stream: Any = one) -> None:
                await kit.fails(ConnectionLost, stream.read)

            async def write(stream: Any = full) -> None:
                async def pour() -> None:
                    while True:
                        await stream.write(BLOCK)

                await kit.fails(ConnectionLost, pour)

            async def perf(pair: Any = pair) -> None:
                await kit.fails(ConnectionError, lambda: pair.client.perf(pair.peer, 10**9, 0))

            await kit.loop.together(cut, read, write, perf)
            for host in (pair.client, pair.server):
                await kit.eventually(partial(_lonely, host), "still connected")
            await one.close()
            await full.close()
            await pair.client.connect(pair.server.addresses[0])
            await pair.works()


def _lonely(host: Any) -> bool:
    return not host.peers


async def lost_peer_can_be_read_to_the_end(kit: Kit) -> None:
    """What arrived before a connection was lost can still be read; then comes the error."""
    async with kit.pair() as pair:

        async def speak(stream: Any) -> None:
            await stream.write(BLOCK)
            await stream.drain()
            await stream.read()

        pair.server.set_handler("/speak/1", speak)
        stream = await pair.open("/speak/1")
        [connection] = pair.client.node.connections()
        await kit.eventually(
            lambda: sum(each.unread for each in connection.app_streams.values()) == len(BLOCK),
            "it did not arrive",
        )
        server = kit.base(pair.server)
        server.node.abort(server.node.connections()[0].id, server.now())
        server.flush()
        await kit.eventually(lambda: not pair.client.peers, "still connected")
        assert await stream.readexactly(len(BLOCK)) == BLOCK
        await kit.fails(ConnectionLost, stream.read)
        await stream.close()


async def close_wakes_who_waits(kit: Kit) -> None:
    """Nobody waits for a closed host: they get an end or an error. Closing may be repeated."""
    with full_backlog() as nowhere:
        async with kit.pair() as pair:
            stream = await pair.open()
            client = pair.client

            async def read() -> None:
                with suppress(LocalError, ConnectionError):
                    assert await stream.read() == b""  # the peer had time to end it

            async def dial() -> None:
                await kit.fails((LocalError, ConnectionError), lambda: client.connect(nowhere))

            async def close() -> None:
                await kit.loop.sleep(0.02)
                await kit.loop.together(client.close, client.close)
                await client.close()

            await kit.loop.together(read, dial, close)
            await stream.close()
            await kit.nobody_waits(client)
            await kit.eventually(lambda: not pair.server.peers, "the peer did not notice")


async def close_does_not_wait_for_the_dead(kit: Kit) -> None:
    """A peer that takes nothing any more delays closing by ``close_timeout`` at most."""
    limits = Limits(close_timeout=0.3)
    async with kit.pair(limits=limits) as pair:
        server, client = kit.base(pair.server), kit.base(pair.client)
        await kit.eventually(server.node.connections, "no connection")
        server._pause_reading(server.node.connections()[0].id)
        stream = await pair.open()
        await stream.write(BLOCK)
        begin = client.now()
        await pair.client.close()
        assert client.now() - begin < 10
        server._resume_reading(server.node.connections()[0].id)


async def a_peer_that_only_stays_is_left(kit: Kit) -> None:
    """A peer ends its direction and reads nothing of ours: it does not keep the transport open."""
    async with kit.pair(limits=Limits(close_timeout=0.3)) as pair:
        client, server = kit.base(pair.client), kit.base(pair.server)
        held = []

        async def pour(stream: Any) -> None:
            while True:
                await stream.write(BLOCK)

        await pair.serve("/pour/1", pour)
        [connection] = server.node.connections()
        client._pause_reading(client.node.connections()[0].id)
        while connection.blocked_since is None:
            held.append(await pair.open("/pour/1"))
            await kit.loop.sleep(0.001)
        client._close_transport(client.node.connections()[0].id, False)
        await kit.eventually(lambda: not server.node._connections, "the transport is kept open")
        client.node.abort(client.node.connections()[0].id, client.now())
        client.flush()


async def close_ends_unfinished_upgrades(kit: Kit) -> None:
    """Connections that are still negotiating end with the host, whoever made them."""
    with silent_listener() as nobody:
        async with kit.server() as server, kit.host() as client:
            host = server.node.addresses[0]
            with socket.create_connection(("127.0.0.1", int(host.get("tcp")))) as stranger:

                async def dial() -> None:
                    await kit.fails((LocalError, ConnectionError), lambda: client.connect(nobody))

                async def close() -> None:
                    await kit.eventually(lambda: client.node._connections, "no connection")
                    await kit.eventually(lambda: server.node._connections, "no connection")
                    await client.close()
                    await server.close()

                await kit.loop.together(dial, close)
                stranger.settimeout(10)
                while stranger.recv(100):
                    pass


async def the_block_goes_on_after_close(kit: Kit) -> None:
    """Closing inside of ``async with`` cancels none of the caller's own code."""
    async with kit.pair() as pair:
        await pair.client.close()
        await kit.loop.sleep(0)
        await kit.loop.sleep(0.01)
        finished = True
    assert finished


async def errors_pass_through(kit: Kit) -> None:
    """An exception in the block comes out as it is, and the host is closed."""

    async def use() -> None:
        async with kit.pair() as pair:
            hosts.append(pair.client)
            raise KeyError("as it is")

    hosts: list[Any] = []
    error = await kit.fails(KeyError, use)
    assert error.args == ("as it is",)
    await kit.fails(LocalError, lambda: hosts[0].listen(LOOPBACK))


async def handler_may_close_its_host(kit: Kit) -> None:
    """Even from one of its own handlers."""
    async with kit.pair() as pair:

        async def stop(stream: Any) -> None:
            await stream.read()
            await pair.server.close()

        pair.server.set_handler("/stop/1", stop)
        stream = await pair.open("/stop/1")
        await stream.write(b"please")
        await kit.eventually(lambda: not pair.client.peers, "it did not close")
        await stream.close()


CHECKS = (
    close_delivers_what_was_written,
    close_delivers_through_a_full_socket,
    closing_a_host_ends_its_streams,
    abrupt_end_breaks_everything,
    lost_peer_can_be_read_to_the_end,
    close_wakes_who_waits,
    close_does_not_wait_for_the_dead,
    a_peer_that_only_stays_is_left,
    close_ends_unfinished_upgrades,
    the_block_goes_on_after_close,
    errors_pass_through,
    handler_may_close_its_host,
)
