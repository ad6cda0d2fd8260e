"""What goes through a stream, how it ends, and who waits for whom."""

from array import array
from typing import Any

from anyp2p_core.errors import (
    ConnectionLost,
    IncompleteRead,
    LocalError,
    NegotiationError,
    RemoteError,
    StreamReset,
    TimedOut,
)
from anyp2p_core.limits import Limits
from anyp2p_core.yamux_stream import INITIAL_WINDOW

from .kit import ECHO, Kit, Pair

BLOCK = bytes(range(256)) * 256


async def bytes_come_back(kit: Kit) -> None:
    """Any size, in order, in both directions at once."""
    async with kit.pair() as pair:
        for size in (0, 1, 65_519, 65_536, 3_000_000):
            data = (BLOCK * (size // len(BLOCK) + 1))[:size]
            stream = await pair.open()
            received = bytearray()

            async def write(stream: Any = stream, data: bytes = data) -> None:
                await stream.write(data)
                await stream.close_write()

            async def read(stream: Any = stream, received: bytearray = received) -> None:
                async for chunk in stream:
                    assert chunk
                    received.extend(chunk)

            await kit.loop.together(write, read)
            assert received == data
            assert await stream.read() == b""
            await stream.close()
        await kit.nobody_waits(pair.client)


async def handlers_are_served(kit: Kit) -> None:
    """A handler gets each stream of its protocol; returning closes it, for the peer as well."""
    async with kit.pair() as pair:
        seen: list[Any] = []

        async def shout(stream: Any) -> None:
            seen.append(stream)
            async with stream:
                async for chunk in stream:
                    await stream.write(chunk.upper())

        pair.server.set_handler("/shout/1", shout)
        streams = [
            await pair.client.open_stream(pair.peer, "/other/1", "/shout/1") for _ in range(3)
        ]
        for stream in streams:
            assert stream.protocol == "/shout/1"
            assert stream.peer == pair.peer
            await stream.write(b"hello")
            await stream.close_write()
            assert await stream.readexactly(5) == b"HELLO"
            assert await stream.read() == b""
        assert [stream.peer for stream in seen] == [pair.client.peer_id] * 3
        assert all(stream.inbound for stream in seen)
        pair.server.remove_handler("/shout/1")
        await kit.fails(
            NegotiationError,
            lambda: pair.client.open_stream(pair.peer, "/shout/1", optimistic=False),
        )
        await kit.nobody_waits(pair.server)
        await pair.works()


async def refused_protocol_breaks_the_stream(kit: Kit) -> None:
    """A protocol that nobody serves: an error at once, or when an optimistic stream is used."""
    async with kit.pair() as pair:
        await pair.client.identify(pair.peer)
        await kit.fails(
            NegotiationError, lambda: pair.client.open_stream(pair.peer, "/none/1", "/none/2")
        )
        await kit.fails(NegotiationError, lambda: pair.client.open_stream(pair.peer, "/none/1"))
        await kit.fails(LocalError, lambda: pair.client.open_stream(pair.peer))
        await kit.nobody_waits(pair.client)
        await pair.works()


async def half_close(kit: Kit) -> None:
    """Closing our direction ends the peer's reading, and nothing else."""
    async with kit.pair() as pair:
        order: list[str] = []

        async def answer(stream: Any) -> None:
            assert await stream.readexactly(3) == b"one"
            assert await stream.read() == b""
            order.append("eof")
            await stream.write(b"two")

        pair.server.set_handler("/half/1", answer)
        stream = await pair.open("/half/1")
        await stream.write(b"one")
        await stream.close_write()
        await kit.fails(LocalError, lambda: stream.write(b"more"))
        assert await stream.read() == b"two"
        assert await stream.read() == b""
        assert await stream.read() == b""
        assert order == ["eof"]
        await stream.close()
        await stream.close()
        await kit.fails(LocalError, stream.read)


async def incomplete_read(kit: Kit) -> None:
    """The end of the stream before all bytes of ``readexactly``: what came is in the error."""
    async with kit.pair() as pair:
        stream = await pair.open()
        await stream.write(b"abc")
        await stream.close_write()
        error = await kit.fails(IncompleteRead, lambda: stream.readexactly(5))
        assert error.partial == b"abc"


async def resets(kit: Kit) -> None:
    """A reset by either side reaches the other one, with its code, behind what came before."""
    async with kit.pair() as pair:
        outcome: list[Any] = []

        async def collect(stream: Any) -> None:
            data = await stream.readexactly(4)
            await stream.write(data)
            outcome.append(await kit.fails(StreamReset, stream.read))
            outcome.append(await kit.fails(StreamReset, lambda: stream.write(b"late")))

        async def refuse(stream: Any) -> None:
            await stream.read()
            await stream.reset(7)

        pair.server.set_handler("/collect/1", collect)
        pair.server.set_handler("/refuse/1", refuse)
        stream = await pair.open("/collect/1")
        await stream.write(b"data")
        assert await stream.read() == b"data"
        await stream.reset(5)
        await kit.eventually(lambda: len(outcome) == 2, "the peer did not hear of the reset")
        assert outcome[0].code == 5
        await kit.fails(LocalError, stream.read)
        await kit.fails(LocalError, lambda: stream.write(b"x"))
        stream = await pair.open("/refuse/1")
        await stream.write(b"please")
        error = await kit.fails(StreamReset, stream.read)
        assert error.code == 7
        await kit.fails(StreamReset, stream.read)
        await stream.close()
        await kit.nobody_waits(pair.client, pair.server)
        await pair.works()


async def failing_handler_resets_its_stream(kit: Kit) -> None:
    """An exception in a handler is logged, and ends nothing but its stream."""
    async with kit.pair() as pair:

        async def fail(stream: Any) -> None:
            await stream.read()
            raise ZeroDivisionError("on purpose")

        pair.server.set_handler("/fail/1", fail)
        with kit.logged() as lines:
            stream = await pair.open("/fail/1")
            await stream.write(b"x")
            await kit.fails(StreamReset, stream.read)
            await stream.close()
        assert any("on purpose" in line and "/fail/1" in line for line in lines), lines
        await kit.nobody_waits(pair.client, pair.server)
        await pair.works()


async def only_one_reader_and_writer(kit: Kit) -> None:
    """A second task that reads or writes the same stream is refused; the first one goes on."""
    async with kit.pair() as pair:
        stream = await pair.open()
        outcome: list[Any] = []

        async def first() -> None:
            outcome.append(await stream.read())

        async def second() -> None:
            await kit.eventually(lambda: kit.base(pair.client)._streams, "no stream")
            await kit.loop.sleep(0)
            await kit.fails(LocalError, stream.read)
            await kit.fails(LocalError, lambda: stream.write("text"))
            await stream.write(b"x")

        await kit.loop.together(first, second)
        assert outcome == [b"x"]
        await stream.close()


async def writer_waits_for_a_reader(kit: Kit) -> None:
    """A writer whose peer does not read stops, at a bounded number of bytes, and goes on later."""
    async with kit.pair() as pair:
        held: list[Any] = []
        go_on = kit.base(pair.server).make_event()

        async def hold(stream: Any) -> None:
            held.append(stream)
            await go_on.wait()
            async for chunk in stream:
                counts["read"] += len(chunk)

        counts = {"written": 0, "read": 0}
        total = 64 * len(BLOCK)
        pair.server.set_handler("/hold/1", hold)
        stream = await pair.open("/hold/1")

        async def write() -> None:
            for _ in range(64):
                await stream.write(BLOCK)
                counts["written"] += len(BLOCK)
            await stream.close_write()

        async def watch() -> None:
            stopped_at = await kit.settled(pair, lambda: counts["written"])
            bound = INITIAL_WINDOW + pair.client.node.limits.max_unsent
            assert 0 < stopped_at <= bound < total, stopped_at
            assert pair.server.node.unread <= INITIAL_WINDOW
            go_on.set()

        await kit.loop.together(write, watch)
        await kit.eventually(lambda: counts["read"] == total, f"not all arrived: {counts}")
        await stream.close()


async def handler_waits_for_a_reader(kit: Kit) -> None:
    """The same in the other direction."""
    async with kit.pair() as pair:
        counts = {"written": 0}

        async def pour(stream: Any) -> None:
            for _ in range(64):
                await stream.write(BLOCK)
                counts["written"] += len(BLOCK)

        pair.server.set_handler("/pour/1", pour)
        stream = await pair.open("/pour/1")
        stopped_at = await kit.settled(pair, lambda: counts["written"])
        bound = INITIAL_WINDOW + pair.server.node.limits.max_unsent
        assert 0 < stopped_at <= bound, stopped_at
        received = 0
        async for chunk in stream:
            received += len(chunk)
        assert received == 64 * len(BLOCK)
        await stream.close()


async def full_socket_stops_all_writers(kit: Kit) -> None:
    """When a peer leaves its socket unread, little is held for it, and nothing is lost."""
    async with kit.pair() as pair:
        server, client = kit.base(pair.server), kit.base(pair.client)
        await kit.eventually(server.node.connections, "no connection")
        conn = server.node.connections()[0].id
        server._pause_reading(conn)
        streams = [await pair.open() for _ in range(48)]
        finished = [False] * len(streams)
        counts = [0] * len(streams)

        def write(index: int) -> Any:
            async def call() -> None:
                for _ in range(8):
                    await streams[index].write(BLOCK)
                await streams[index].close_write()
                finished[index] = True

            return call

        def read(index: int) -> Any:
            async def call() -> None:
                async for chunk in streams[index]:
                    counts[index] += len(chunk)

            return call

        async def watch() -> None:
            [connection] = client.node.connections()
            assert connection.muxer is not None
            samples: list[int] = []

            def stuck() -> bool:
                samples.append(connection.unsent())
                same = len(set(samples[-10:])) == 1 and len(samples) > 10
                return connection.blocked_since is not None and same

            await kit.eventually(stuck, "the socket never filled up")
            assert not all(finished)
            most = len(connection.muxer.streams) * client.node.limits.max_unsent
            assert samples[-1] <= most, f"{samples[-1]} bytes are held, more than {most}"
            server._resume_reading(conn)

        await kit.loop.together(
            watch, *map(write, range(len(streams))), *map(read, range(len(streams)))
        )
        assert counts == [8 * len(BLOCK)] * len(streams)
        for stream in streams:
            await stream.close()


async def anything_with_bytes_can_be_written(kit: Kit) -> None:
    """``bytearray`` and ``memoryview`` too, of any item size, changed at once after the call."""
    async with kit.pair() as pair:
        stream = await pair.open()
        numbers = array("I", range(1000))
        buffer = bytearray(b"before")
        await stream.write(memoryview(numbers))
        await stream.write(buffer)
        buffer[:] = b"after!"
        await stream.write(memoryview(b"-even-")[::1])
        await stream.close_write()
        expected = numbers.tobytes() + b"before-even-"
        assert await stream.readexactly(len(expected)) == expected
        await stream.close()
        large = array("I", range(300_000))
        received = bytearray()

        async def write() -> None:
            await stream.write(memoryview(large))
            await stream.close_write()

        async def read() -> None:
            async for chunk in stream:
                received.extend(chunk)

        stream = await pair.open()
        await kit.loop.together(write, read)
        assert received == large.tobytes()
        await stream.close()


async def drains(kit: Kit) -> None:
    """``drain`` returns when everything written was handed to the transport."""
    async with kit.pair() as pair:
        stream = await pair.open()
        await stream.drain()
        for size in (1, 100_000):
            await stream.write(bytes(size))
            await stream.drain()
            [connection] = pair.client.node.connections()
            assert connection.unsent() == 0
            await stream.readexactly(size)
        await stream.close()


async def ping_times_out(kit: Kit) -> None:
    """A ping that is not answered fails after ``ping_timeout``; the connection is still good."""
    async with kit.pair(limits=Limits(ping_timeout=0.15)) as pair:
        await pair.works()
        server = kit.base(pair.server)
        conn = server.node.connections()[0].id
        server._pause_reading(conn)
        begin = kit.base(pair.client).now()
        await kit.fails(TimedOut, lambda: pair.client.ping(pair.peer))
        assert kit.base(pair.client).now() - begin >= 0.15
        server._resume_reading(conn)
        await _works_again(kit, pair)


async def _works_again(kit: Kit, pair: Pair) -> None:
    for _ in range(20):
        try:
            await pair.works()
        except (RemoteError, StreamReset, ConnectionLost):
            await kit.loop.sleep(0.05)
        else:
            return
    await pair.works()


async def timers_fire_in_time(kit: Kit) -> None:
    """Never early, in order, also one that is set to come before the one that is armed."""
    async with kit.host() as host:
        base = kit.base(host)
        fired: list[tuple[float, float]] = []

        def arm(seconds: float) -> int:
            when = base.now() + seconds
            timer = base.node.call_at(when, "check", lambda now: fired.append((when, now)))
            base.flush()
            return timer

        far = arm(600.0)
        arm(0.2)
        arm(0.05)
        never = arm(0.1)
        arm(0.15)
        arm(0.0)
        base.node.cancel(never)
        await kit.eventually(lambda: len(fired) == 4, f"timers are missing: {fired}")
        assert [when for when, _ in fired] == sorted(when for when, _ in fired)
        assert all(when <= now <= when + 10 for when, now in fired), fired
        arm(0.01)
        await kit.eventually(lambda: len(fired) == 5, "a timer after a pause did not fire")
        base.node.cancel(far)


async def many_streams(kit: Kit) -> None:
    """Two hundred streams on one connection, all open at once."""
    async with kit.pair() as pair:

        async def talk() -> None:
            stream = await pair.open()
            await stream.write(BLOCK[:1000])
            await kit.eventually(lambda: len(opened) == 200, "not all streams were opened")
            await stream.close_write()
            assert await stream.readexactly(1000) == BLOCK[:1000]
            assert await stream.read() == b""
            await stream.close()

        opened: list[None] = []

        async def counted() -> None:
            opened.append(None)
            await talk()

        await kit.loop.together(*[counted] * 200)
        await kit.nobody_waits(pair.client)
        stream = await pair.open(ECHO)
        await stream.reset()


CHECKS = (
    bytes_come_back,
    handlers_are_served,
    refused_protocol_breaks_the_stream,
    half_close,
    incomplete_read,
    resets,
    failing_handler_resets_its_stream,
    only_one_reader_and_writer,
    writer_waits_for_a_reader,
    handler_waits_for_a_reader,
    full_socket_stops_all_writers,
    anything_with_bytes_can_be_written,
    drains,
    ping_times_out,
    timers_fire_in_time,
    many_streams,
)
