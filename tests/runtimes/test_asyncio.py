"""asyncio: the published checks, and what people of that loop expect. For uvloop as well."""

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop
from kit_checks import checks_on, run
from on_loops import Runtime

from anyp2p.asyncio import Host, Stream
from anyp2p.testing import Check
from anyp2p_core.errors import ConnectionLost, IncompleteRead

LOOPBACK = "/ip4/127.0.0.1/tcp/0"

on_both = pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
MakeLoop = Callable[[], asyncio.AbstractEventLoop]


def run_on(make_loop: MakeLoop, main: Coroutine[Any, Any, None], debug: bool = False) -> None:
    with asyncio.Runner(loop_factory=make_loop, debug=debug) as runner:
        runner.run(asyncio.wait_for(main, 60))


@checks_on("asyncio")
def test_check(runtime: Runtime, check: Check) -> None:
    run(runtime, check)


@on_both
def test_streams_read_and_write_like_asyncio_streams(make_loop: MakeLoop) -> None:
    async def main() -> None:
        async with Host(listen=[LOOPBACK]) as server, Host() as client:

            @server.handle("/lines/1")
            async def answer(stream: Stream) -> None:
                async for chunk in stream:
                    await stream.write(chunk.upper())
                    await stream.drain()
                await stream.write(b"bye")

            async with await client.open_stream(server.addresses[0], "/lines/1") as stream:
                await stream.write(b"hello")
                assert await stream.readexactly(5) == b"HELLO"
                await stream.close_write()
                assert await stream.read(2) == b"by"
                with pytest.raises(IncompleteRead) as caught:
                    await stream.readexactly(2)
                assert isinstance(caught.value, EOFError) and caught.value.partial == b"e"
                assert await stream.read() == b""

    run_on(make_loop, main())


@on_both
def test_timeouts_and_task_groups(make_loop: MakeLoop) -> None:
    async def main() -> None:
        async with Host(listen=[LOOPBACK], echo=True) as server, Host() as client:
            stream = await client.open_stream(server.addresses[0], "/echo/1.0.0")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await stream.read()
            async with asyncio.TaskGroup() as group:
                pings = [group.create_task(client.ping(stream.peer)) for _ in range(20)]
            assert all(ping.result() > 0 for ping in pings)
            await stream.write(b"x")
            assert await stream.read() == b"x"
            await stream.close()

    run_on(make_loop, main(), debug=True)


@on_both
def test_cancelling_the_main_task_closes_in_order(make_loop: MakeLoop) -> None:
    async def main() -> None:
        arrived = asyncio.Event()
        async with Host(listen=[LOOPBACK]) as server:

            @server.handle("/collect/1")
            async def collect(stream: Stream) -> None:
                assert await stream.readexactly(100_000) == bytes(100_000)
                assert await stream.read() == b""
                arrived.set()

            async def use() -> None:
                async with Host() as client:
                    stream = await client.open_stream(server.addresses[0], "/collect/1")
                    await stream.write(bytes(100_000))
                    began.set()
                    await asyncio.sleep(60)

            began = asyncio.Event()
            task = asyncio.create_task(use())
            await began.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await arrived.wait()

    run_on(make_loop, main())


@on_both
def test_two_loops_in_two_threads(make_loop: MakeLoop) -> None:
    addresses: list[Any] = []
    ready, done = threading.Event(), threading.Event()

    async def serve() -> None:
        async with Host(listen=[LOOPBACK], echo=True) as server:
            addresses.extend(server.addresses)
            ready.set()
            await asyncio.to_thread(done.wait)

    async def use() -> None:
        async with Host() as client:
            assert await client.ping(addresses[0]) > 0
            stream = await client.open_stream(addresses[0], "/echo/1.0.0")
            await stream.write(b"x")
            assert await stream.read() == b"x"

    thread = threading.Thread(target=run_on, args=(make_loop, serve()))
    thread.start()
    try:
        assert ready.wait(30)
        run_on(make_loop, use())
    finally:
        done.set()
        thread.join()


@on_both
def test_a_transport_error_says_what_it_was(make_loop: MakeLoop) -> None:
    """The reason of the operating system comes through to whoever reads."""

    async def main() -> None:
        async with Host(listen=[LOOPBACK], echo=True) as server, Host() as client:
            stream = await client.open_stream(server.addresses[0], "/echo/1.0.0")
            await stream.write(b"x")
            assert await stream.read() == b"x"
            [connection] = server.node.connections()
            server.node.abort(connection.id, server.now())
            server.flush()
            with pytest.raises(ConnectionLost, match=str(server.peer_id)):
                await stream.read()
            await stream.close()

    run_on(make_loop, main())


def test_the_selector_forgets_a_full_socket() -> None:
    """A host that ends while the other side does not read leaves nothing registered."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        before = len(loop._selector.get_map())
        listener = socket.create_server(("127.0.0.1", 0))
        client = Host(security=["plaintext"])
        await client.start()
        address = f"/ip4/127.0.0.1/tcp/{listener.getsockname()[1]}"
        dial = asyncio.create_task(client.connect(address))
        stranger, _ = await asyncio.to_thread(listener.accept)
        while not client._links:
            await asyncio.sleep(0)
        [conn] = client._links
        while client._links[conn].pending is None:
            client._send(conn, bytes(1 << 20))
        assert client._links[conn].draining and len(loop._selector.get_map()) > before
        client._links[conn].error = OSError("the first one counts")
        await client.close()
        with pytest.raises(ConnectionError):
            await dial
        assert len(loop._selector.get_map()) == before
        stranger.close()
        listener.close()

    run_on(asyncio.new_event_loop, main())
