"""anyio: the published checks on both backends, and what people of that library expect."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.text import TextStream
from kit_checks import checks_on, run
from on_loops import Runtime

from anyp2p.anyio import Host, Stream, StreamAttribute
from anyp2p.testing import Check
from anyp2p_core.errors import ListenError, LocalError, NegotiationError

LOOPBACK = "/ip4/127.0.0.1/tcp/0"

on_both = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@checks_on("anyio-asyncio", "anyio-trio")
def test_check(runtime: Runtime, check: Check) -> None:
    run(runtime, check)


@asynccontextmanager
async def connected() -> AsyncIterator[Any]:
    """Both ends of a stream, and their hosts."""
    async with Host(listen=[LOOPBACK]) as server, Host() as client:
        give, take = anyio.create_memory_object_stream[Stream](1)

        @server.handle("/test/1")
        async def hand_over(stream: Stream) -> None:
            await give.send(stream)
            await anyio.sleep_forever()

        with give, take:
            one = await client.open_stream(server.addresses[0], "/test/1")
            yield one, await take.receive(), client, server


@on_both
def test_streams_are_byte_streams(backend: str) -> None:
    async def main() -> None:
        async with connected() as (one, other, _, _):
            assert isinstance(one, anyio.abc.ByteStream)
            await one.send(b"line 1\nline 2\n")
            lines = BufferedByteReceiveStream(other)
            assert await lines.receive_until(b"\n", 100) == b"line 1"
            assert await lines.receive_exactly(6) == b"line 2"
            await TextStream(other).send("grün")
            assert await TextStream(one).receive() == "grün"
            await one.send_eof()
            with pytest.raises(anyio.IncompleteRead):
                await lines.receive_exactly(10)
            with pytest.raises(anyio.EndOfStream):
                await other.receive()
            with pytest.raises(anyio.ClosedResourceError):
                await one.send(b"more")
            await other.send(b"last")
            await other.aclose()
            assert [chunk async for chunk in one] == [b"last"]
            await one.aclose()
            with pytest.raises(anyio.ClosedResourceError):
                await one.receive()

    anyio.run(main, backend=backend)


@on_both
def test_typed_attributes(backend: str) -> None:
    async def main() -> None:
        async with connected() as (one, other, client, server):
            assert one.extra(StreamAttribute.peer_id) == server.peer_id
            assert other.extra(StreamAttribute.peer_id) == client.peer_id
            assert one.extra(StreamAttribute.protocol) == "/test/1"
            assert one.extra(StreamAttribute.remote_address) == server.node.addresses[0]
            assert other.extra(StreamAttribute.local_address) == server.node.addresses[0]
            assert one.extra(StreamAttribute.local_address) == other.extra(
                StreamAttribute.remote_address
            )
            await one.aclose()
            assert one.extra(StreamAttribute.protocol) == "/test/1"
            assert BufferedByteReceiveStream(one).extra(StreamAttribute.peer_id) == server.peer_id
            with pytest.raises(anyio.TypedAttributeLookupError):
                one.extra(anyio.abc.SocketAttribute.raw_socket)

    anyio.run(main, backend=backend)


@on_both
def test_broken_and_busy_streams(backend: str) -> None:
    async def main() -> None:
        async with connected() as (one, other, _, server):
            async with anyio.create_task_group() as group:

                async def receive() -> None:
                    with pytest.raises(anyio.BrokenResourceError):
                        await one.receive()

                group.start_soon(receive)
                await anyio.wait_all_tasks_blocked()
                with pytest.raises(anyio.BusyResourceError):
                    await one.receive()
                await other.reset(9)
            with pytest.raises(anyio.BrokenResourceError, match="0x9"):
                await one.send(b"x")
            await one.aclose()
            async with Host() as stranger:
                refused = await stranger.open_stream(server.addresses[0], "/none/1")
                with pytest.raises(anyio.BrokenResourceError) as caught:
                    await refused.receive()
                assert isinstance(caught.value.__cause__, NegotiationError)
                await refused.aclose()

    anyio.run(main, backend=backend)


@on_both
def test_errors_come_out_bare(backend: str) -> None:
    async def main() -> None:
        with pytest.raises(KeyError):
            async with Host():
                raise KeyError
        with pytest.raises(ListenError):
            async with Host(listen=["/ip4/198.51.100.1/tcp/0"]):
                pass
        with pytest.raises(LocalError, match="async with"):
            await Host().start()

    anyio.run(main, backend=backend)


@on_both
def test_an_outer_cancellation_closes_the_host_and_goes_on_out(backend: str) -> None:
    async def main() -> None:
        with anyio.move_on_after(0.05) as scope:
            async with Host(listen=[LOOPBACK]) as host:
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert host.closed

    anyio.run(main, backend=backend)


def test_on_uvloop() -> None:
    async def main() -> None:
        async with Host(listen=[LOOPBACK]) as server, Host() as client:
            assert await client.ping(server.addresses[0]) > 0

    anyio.run(main, backend="asyncio", backend_options={"use_uvloop": True})
