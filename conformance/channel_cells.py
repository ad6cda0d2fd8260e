"""What lies between two peers, and what they must be able to do over it: the channel columns.

connect, negotiated?, ping, identify, echo, perf, hang up       over every channel
connect, ping, echo, hang up                                    in a private network
no connection; connect, ping, hang up elsewhere                 where a dial is to be refused
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import cells
from cells import CellFailed, Lane, expect
from peer import PeerFailed

PERF_BYTES = 8 << 20
CELL_TIMEOUT = 60.0
REFUSAL_TIMEOUT = 30.0
"""Longer than any implementation gives a handshake: bytes of another key may look unfinished."""


class Start(NamedTuple):
    """Which process of a program: how it is started."""

    security: str
    muxers: str
    transports: tuple[str, ...] = ("tcp",)
    network: str = ""
    """``right``, or ``other`` for another key; empty outside private networks."""
    web: str = "right"
    """``other`` for web certificates of an authority that nobody else believes."""


@dataclass(slots=True)
class Channel:
    """A column. ``ours`` and ``theirs`` say how the two peers have to be started."""

    name: str
    transport: str
    ours: Start
    theirs: Start
    run: Callable[[Lane, "Channel", Lane | None], Awaitable[str]]
    agreed: str = ""
    """What the connection must consist of, if anything; as in the names of columns."""
    needs: tuple[str, ...] = ()
    """Of both peers, as words of ``cannot`` in their peer.json."""
    theirs_needs: tuple[str, ...] = ()
    """Of the peer, not of us, who are to refuse it."""
    goes_on: bool = False
    """Whether we then meet another process of theirs, to show that nothing has happened."""
    slow: bool = False
    """Whether it may wait for a time limit; nothing else is done with these processes."""


async def run(lane: Lane, channel: Channel, elsewhere: Lane | None) -> str:
    """Do what the column says, in bounded time, and leave no connection; returns a remark."""
    try:
        async with asyncio.timeout(CELL_TIMEOUT):
            return await channel.run(lane, channel, elsewhere)
    except TimeoutError:
        raise CellFailed(f"not done in {CELL_TIMEOUT:.0f} s") from None
    except BaseException:
        with suppress(CellFailed, PeerFailed, TimeoutError):
            async with asyncio.timeout(cells.SETTLE_TIMEOUT):
                await cells.hang_up(lane)
        raise


async def _meet(lane: Lane, channel: Channel, elsewhere: Lane | None) -> str:
    await cells.dial(lane)
    await _negotiated(lane, channel)
    await cells.ping(lane)
    await cells.identify(lane)
    await cells.echo(lane)
    remark = await cells.perf(lane, PERF_BYTES)
    await cells.hang_up(lane)
    return remark


async def _negotiated(lane: Lane, channel: Channel) -> None:
    """What both sides say of the connection; some cannot tell all of it."""
    for peer, other in lane.both_ways:
        answer = await peer.call("connections", timeout=10)
        for name in answer.get("channels", {}).get(other.id, ()):
            said, expected = name.split("+"), channel.agreed.split("+")
            if peer is lane.listener and channel.transport == "wss" and said[0] == "ws":
                said[0] = "wss"  # where TLS ends before the library looks
            same = len(said) == len(expected) and all(
                a in (b, "?") for a, b in zip(said, expected, strict=True)
            )
            expect(same, f"{peer.label} has {name} with {other.label}, not {channel.agreed}")


async def _private(lane: Lane, channel: Channel, elsewhere: Lane | None) -> str:
    await cells.dial(lane)
    await cells.ping(lane)
    await cells.echo(lane)
    await cells.hang_up(lane)
    return ""


async def _refused(lane: Lane, channel: Channel, elsewhere: Lane | None) -> str:
    """The dial must fail, and both must go on as if nothing had been."""
    dialer, listener = lane.dialer, lane.listener
    try:
        await dialer.call("dial", address=lane.address, timeout=REFUSAL_TIMEOUT)
    except PeerFailed as error:
        expect("no answer in" not in str(error), f"{dialer.label} never gave up: {error}")
        remark = str(error)
    else:
        raise CellFailed(f"{dialer.label} has connected to {listener.label}")
    for peer in (dialer, listener):
        expect(peer.alive, f"{peer.label} did not survive it")
    # Some list a connection before its muxer is confirmed.
    await cells.settle(lane, connected=False)
    if elsewhere is not None:
        await cells.dial(elsewhere)
        await cells.ping(elsewhere)
        await cells.hang_up(elsewhere)
    return remark


STREAMS = ("tcp", "ws", "wss")
ALL = Start("noise,tls", "yamux,mplex", (*STREAMS, "quic-v1"))
"""How the peers are started; ours is the side that has no choice."""
PLAIN = Start("noise", "yamux", STREAMS)
"""How ours is started where the channel does not matter."""
ANY = Start("noise,tls", "yamux,mplex")
OLD = Start("noise,tls", "mplex")
RIGHT = Start("noise", "yamux", network="right")
OTHER = Start("noise", "yamux", network="other")


def _channels() -> Iterator[Channel]:
    for transport in STREAMS:
        for security in ("noise", "tls"):
            for muxer in ("yamux", "mplex"):
                words = (transport, security, muxer)
                if words != ("tcp", "noise", "yamux"):  # the matrix is about that one
                    name = "+".join(words)
                    ours = Start(security, muxer, STREAMS)
                    yield Channel(name, transport, ours, ALL, _meet, agreed=name, needs=words)
    agreed = "tcp+noise+yamux"  # what both have named first
    yield Channel("tcp+any+any", "tcp", ANY, ALL, _meet, agreed=agreed)
    ours = Start("noise", "yamux", ("tcp", "quic-v1"))
    needs: tuple[str, ...] = ("quic-v1",)
    yield Channel("quic-v1", "quic-v1", ours, ALL, _meet, agreed="quic-v1", needs=needs)
    yield Channel("pnet", "tcp", RIGHT, RIGHT, _private, needs=("pnet",))
    yield Channel("pnet other key", "tcp", OTHER, RIGHT, _refused, needs=("pnet",), slow=True)
    ours = Start("noise", "yamux", STREAMS, web="other")
    name = "wss other authority"
    yield Channel(name, "wss", ours, ALL, _refused, needs=("wss",), goes_on=True)
    for name, ours, theirs, needs in (
        ("no common security", PLAIN, Start("plaintext", "yamux"), ("plaintext",)),
        ("no common muxer noise", PLAIN, OLD, ("mplex",)),
        ("no common muxer tls", Start("tls", "yamux", STREAMS), OLD, ("tls", "mplex")),
    ):
        yield Channel(name, "tcp", ours, theirs, _refused, theirs_needs=needs, goes_on=True)


CHANNELS = {channel.name: channel for channel in _channels()}
COLUMNS = tuple(CHANNELS)
