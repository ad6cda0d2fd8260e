"""Cancelling whatever a person can await, at each of its suspensions in turn.

Every check runs its operation again and again, cancelled at the first suspension, at the second,
and so on until it ends by itself. Each time the hosts must go on as if nothing had happened.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from anyp2p_core.errors import LocalError, StreamReset

from .kit import ECHO, LOOPBACK, Kit, Pair

MOST = 100
"""Suspensions of one operation, far above what any needs."""
BLOCK = bytes(range(256)) * 256


async def everywhere(
    kit: Kit, operation: Callable[[], Awaitable[Any]], after: Callable[[], Awaitable[Any]]
) -> int:
    """Cancel ``operation`` at each suspension, and await ``after`` each time. Returns how many."""
    kinds = (False, True) if kit.loop.late_cancellation else (False,)
    reached = 0
    for late in kinds:
        for checkpoint in range(1, MOST):
            cancelled = await kit.loop.cancel_at(checkpoint, operation, late=late)
            await after()
            if not cancelled:
                break
            reached += 1
        else:
            raise AssertionError(f"it never ended by itself in {MOST} suspensions")
    return reached


async def cancelled_connect(kit: Kit) -> None:
    """A dial that nobody waits for any more is given up, or has succeeded."""
    async with kit.pair() as pair:
        await pair.client.disconnect(pair.peer)

        async def after() -> None:
            await kit.nobody_waits(pair.client)
            assert not len(pair.client.node._dialing)
            await pair.client.connect(pair.server.addresses[0])
            await pair.works()
            await pair.client.disconnect(pair.peer)

        async def connect() -> None:
            await pair.client.connect(pair.server.addresses[0])

        assert await everywhere(kit, connect, after) >= 1


async def cancelled_shared_dial(kit: Kit) -> None:
    """One of two who wait for the same dial gives up; the other one gets its connection."""
    async with kit.server() as server, kit.host() as client:

        async def impatient() -> None:
            await kit.loop.cancel_at(1, lambda: client.connect(server.addresses[0]), late=False)

        async def patient() -> None:
            assert await client.connect(server.addresses[0]) == server.peer_id

        await kit.loop.together(impatient, patient, impatient)
        await kit.nobody_waits(client)


async def cancelled_open_stream(kit: Kit) -> None:
    """The stream is reset, also if it was opened in that very moment."""
    async with kit.pair() as pair:
        await pair.works()
        quiet = len(pair.client.node.connections()[0].muxer.streams)

        async def after() -> None:
            await kit.nobody_waits(pair.client)
            await pair.works()
            await kit.eventually(
                lambda: len(pair.client.node.connections()[0].muxer.streams) <= quiet,
                "a stream that was given up is still open",
            )

        async def open_stream() -> None:
            stream = await pair.client.open_stream(pair.peer, "/none/1", ECHO)
            await stream.reset()

        assert await everywhere(kit, open_stream, after) >= 1


async def cancelled_read(kit: Kit) -> None:
    """A cancelled read has lost nothing."""
    async with kit.pair() as pair:
        stream = await pair.open()
        sent, received = bytearray(), bytearray()

        async def read() -> None:
            received.extend(await stream.read())

        async def after() -> None:
            data = len(sent).to_bytes(4, "big")
            sent.extend(data)
            await stream.write(data)
            while len(received) < len(sent):
                received.extend(await stream.read())
            assert received == sent

        async def feed_and_read() -> None:
            await stream.write(b"1234")
            sent.extend(b"1234")
            await read()

        for _ in range(3):
            assert await kit.loop.cancel_at(1, read, late=False)
            await after()
        assert await everywhere(kit, feed_and_read, after) >= 1
        await stream.close_write()
        assert await stream.read() == b""
        await stream.close()
        await pair.works()


async def cancelled_write(kit: Kit) -> None:
    """A cancelled write has written a prefix, and the next one follows it."""
    async with kit.pair() as pair:
        arrived: list[bytes] = []

        async def collect(stream: Any) -> None:
            await go_on[0].wait()
            parts = [chunk async for chunk in stream]
            arrived.append(b"".join(parts))

        pair.server.set_handler("/collect/1", collect)
        go_on = [kit.base(pair.server).make_event()]
        data = BLOCK * 32
        stream: Any = None

        async def write() -> None:
            nonlocal stream
            stream, go_on[0] = None, kit.base(pair.server).make_event()
            stream = await pair.open("/collect/1")
            kit.base(pair.client).node.call_at(
                kit.base(pair.client).now() + 0.02, "check", lambda now: go_on[0].set()
            )
            await stream.write(data)
            await stream.close()

        async def after() -> None:
            if stream is not None:
                finished = _closed(stream)
                if not finished:
                    await stream.write(b"END")
                    await stream.close()
                go_on[0].set()
                await kit.eventually(lambda: arrived, "the handler did not end")
                whole = arrived.pop()
                assert whole == data or not finished
                if not finished:
                    assert whole.endswith(b"END"), f"{len(whole)} bytes, {whole[-9:]!r} at the end"
                    assert data.startswith(whole[:-3]), "not a prefix of what was written"
            await kit.nobody_waits(pair.client, pair.server)
            await pair.works()

        assert await everywhere(kit, write, after) >= 1


def _closed(stream: Any) -> bool:
    found = getattr(stream, "blocking", stream)
    return bool(getattr(found, "_stream", found).closed)


async def cancelled_drain(kit: Kit) -> None:
    """Giving up waiting for ``drain`` changes nothing."""
    async with kit.pair() as pair:
        stream = await pair.open()
        size = 0

        async def drain() -> None:
            nonlocal size
            size += len(BLOCK)
            await stream.write(BLOCK)
            await stream.drain()

        async def after() -> None:
            nonlocal size
            await stream.readexactly(size)
            size = 0

        await everywhere(kit, drain, after)
        await stream.readexactly(size)
        await stream.close()
        await pair.works()


async def cancelled_ping(kit: Kit) -> None:
    """The next ping gets its own answer."""
    async with kit.pair() as pair:

        async def after() -> None:
            await kit.nobody_waits(pair.client)
            await pair.works()

        assert await everywhere(kit, lambda: pair.client.ping(pair.peer), after) >= 1


async def cancelled_identify(kit: Kit) -> None:
    """Whoever asks again is told."""
    async with kit.pair() as pair:

        async def identify() -> None:
            await pair.client.disconnect(pair.peer)
            await pair.client.connect(pair.server.addresses[0])
            await pair.client.identify(pair.peer)

        async def after() -> None:
            await kit.nobody_waits(pair.client)
            await pair.client.identify(pair.server.addresses[0])

        assert await everywhere(kit, identify, after) >= 1


async def cancelled_perf(kit: Kit) -> None:
    """The run is broken off; another one is possible at once."""
    async with kit.pair() as pair:
        await pair.works()
        quiet = len(pair.client.node.connections()[0].muxer.streams)

        async def after() -> None:
            await kit.nobody_waits(pair.client)
            await pair.client.perf(pair.peer, 1000, 1000)
            await kit.eventually(
                lambda: len(pair.client.node.connections()[0].muxer.streams) <= quiet,
                "a perf stream is still open",
            )

        assert await everywhere(kit, lambda: pair.client.perf(pair.peer, 10**6, 10**6), after) >= 1


async def cancelled_disconnect(kit: Kit) -> None:
    """The connection closes all the same."""
    async with kit.pair() as pair:

        async def disconnect() -> None:
            await pair.client.connect(pair.server.addresses[0])
            await pair.client.disconnect(pair.peer)

        async def after() -> None:
            await kit.nobody_waits(pair.client)
            await pair.client.connect(pair.server.addresses[0])
            await pair.works()

        assert await everywhere(kit, disconnect, after) >= 1


async def cancelled_listen(kit: Kit) -> None:
    """Either it listens or it does not."""
    async with kit.pair() as pair:

        async def after() -> None:
            await kit.nobody_waits(pair.client)
            for address in pair.client.addresses:
                await pair.server.connect(address)
            await pair.works()

        await everywhere(kit, lambda: pair.client.listen(LOOPBACK), after)


async def cancelled_close(kit: Kit) -> None:
    """Closing goes on without order: nothing is left open, and the peer notices."""

    async def use(close_at: int, late: bool) -> bool:
        async with kit.server() as server, kit.host() as client:
            pair = Pair(kit, {})
            pair.server, pair.client = server, client
            pair.peer = await client.connect(server.addresses[0])
            await pair.works()
            reached = await kit.loop.cancel_at(close_at, client.close, late=late)
            await kit.eventually(lambda: not server.peers, "the peer did not notice")
            await client.close()
            await kit.fails(LocalError, lambda: client.ping(pair.peer))
            await kit.nobody_waits(client)
            return reached

    for late in (False, True) if kit.loop.late_cancellation else (False,):
        for checkpoint in range(1, MOST):
            if not await use(checkpoint, late):
                break
        else:
            raise AssertionError("closing never ended")


async def cancelled_life(kit: Kit) -> None:
    """A whole life, from the start of two hosts to the end, cancelled at each suspension."""

    async def live() -> None:
        async with kit.pair() as pair:
            stream = await pair.open()
            await stream.write(b"abc")
            assert await stream.readexactly(3) == b"abc"

    async def after() -> None:
        await kit.no_more_than(before)

    before = kit.census()
    assert await everywhere(kit, live, after) >= 3


async def cancelled_handler(kit: Kit) -> None:
    """Handlers die with their host, and their clean-up runs."""
    ended: list[str] = []

    async def wait_for_ever(stream: Any) -> None:
        ended.append("began")
        try:
            await stream.readexactly(1000)
        finally:
            ended.append("ended")

    async def wait_elsewhere(stream: Any) -> None:
        ended.append("began")
        try:
            await kit.loop.sleep(1000)
        finally:
            ended.append("ended")

    async with kit.pair() as pair:
        pair.server.set_handler("/read/1", wait_for_ever)
        pair.server.set_handler("/sleep/1", wait_elsewhere)
        for protocol in ("/read/1", "/sleep/1", "/sleep/1"):
            await (await pair.open(protocol)).write(b"x")
        await kit.eventually(lambda: ended == ["began"] * 3, "handlers did not start")
        await pair.server.close()
        assert ended == ["began"] * 3 + ["ended"] * 3
        await kit.nobody_waits(pair.server)


async def reset_wakes_who_waits(kit: Kit) -> None:
    """A task that waits on a stream which another task resets, or closes, gets an error."""
    async with kit.pair() as pair:
        for how in ("reset", "close"):
            stream = await pair.open()

            async def wait(stream: Any = stream) -> None:
                await kit.fails((LocalError, StreamReset), stream.read)

            async def end(stream: Any = stream, how: str = how) -> None:
                await kit.loop.sleep(0.01)
                await getattr(stream, how)()

            await kit.loop.together(wait, end)
        await kit.nobody_waits(pair.client)


CHECKS = (
    cancelled_connect,
    cancelled_shared_dial,
    cancelled_open_stream,
    cancelled_read,
    cancelled_write,
    cancelled_drain,
    cancelled_ping,
    cancelled_identify,
    cancelled_perf,
    cancelled_disconnect,
    cancelled_listen,
    cancelled_close,
    cancelled_life,
    cancelled_handler,
    reset_wakes_who_waits,
)
