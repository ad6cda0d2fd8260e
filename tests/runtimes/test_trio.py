"""trio: the published checks, and what people of that loop expect."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from kit_checks import checks_on, run
from on_loops import Runtime

from anyp2p.testing import Check
from anyp2p.trio import Host, Stream
from anyp2p_core.errors import ListenError, LocalError, NegotiationError

LOOPBACK = "/ip4/127.0.0.1/tcp/0"


@checks_on("trio")
def test_check(runtime: Runtime, check: Check) -> None:
    run(runtime, check)


@asynccontextmanager
async def connected() -> AsyncIterator[Any]:
    """A function that makes both ends of a fresh stream."""
    async with Host(listen=[LOOPBACK]) as server, Host() as client:
        peer = await client.connect(server.addresses[0])
        give, take = trio.open_memory_channel[Stream](0)

        @server.handle("/test/1")
        async def hand_over(stream: Stream) -> None:
            await give.send(stream)
            await trio.sleep_forever()  # whoever took it closes it

        async def make() -> tuple[Stream, Stream]:
            stream = await client.open_stream(peer, "/test/1")
            return stream, await take.receive()

        yield make


async def clog(stream: Stream) -> None:
    while True:
        with trio.move_on_after(0.05) as scope:
            await stream.send_all(bytes(65536))
        if scope.cancelled_caught:
            return


def test_streams_are_half_closeable_streams() -> None:
    async def main() -> None:
        async with connected() as make:

            async def make_clogged() -> tuple[Stream, Stream]:
                both: tuple[Stream, Stream] = await make()
                for stream in both:
                    await clog(stream)
                return both

            one, other = await make()
            assert isinstance(one, trio.abc.HalfCloseableStream)
            await one.aclose()
            await other.aclose()
            await trio.testing.check_half_closeable_stream(make, make_clogged)

    trio.run(main)


def test_streams_iterate_and_break_as_in_trio() -> None:
    async def main() -> None:
        async with connected() as make:
            one, other = await make()
            await one.send_all(b"hello")
            await one.send_eof()
            assert [chunk async for chunk in other] == [b"hello"]
            await other.reset(3)
            with pytest.raises(trio.BrokenResourceError, match="0x3"):
                await one.receive_some()
            with pytest.raises(trio.ClosedResourceError):
                await other.receive_some()
            await one.aclose()

    trio.run(main)


def test_a_refused_protocol_breaks_the_stream() -> None:
    async def main() -> None:
        async with Host(listen=[LOOPBACK]) as server, Host() as client:
            stream = await client.open_stream(server.addresses[0], "/none/1")
            with pytest.raises(trio.BrokenResourceError) as caught:
                await stream.receive_some()
            assert isinstance(caught.value.__cause__, NegotiationError)
            await stream.aclose()

    trio.run(main)


def test_errors_come_out_bare() -> None:
    async def main() -> None:
        with pytest.raises(KeyError):
            async with Host():
                raise KeyError
        with pytest.raises(ListenError):
            async with Host(listen=["/ip4/198.51.100.1/tcp/0"]):
                pass

    trio.run(main, strict_exception_groups=True)


def test_an_outer_cancellation_closes_the_host_and_goes_on_out() -> None:
    async def main() -> None:
        with trio.move_on_after(0.05) as scope:
            async with Host(listen=[LOOPBACK]) as host:
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert host.closed

    trio.run(main)


def test_it_wants_async_with() -> None:
    async def main() -> None:
        host = Host()
        with pytest.raises(LocalError, match="async with"):
            await host.start()

    trio.run(main)


def test_autojump_clock() -> None:
    """Timers run on trio's clock, so that tests of applications need not wait."""

    async def main() -> None:
        async with Host() as host:
            fired: list[float] = []
            host.node.call_at(host.now() + 3600, "test", fired.append)
            host.flush()
            await trio.sleep(3601)
            assert fired

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.01))
