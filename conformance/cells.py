"""What two connected peers must be able to do: one function per column of the matrix.

A cell runs its commands on both peers, each toward the other, over the connection that one of them
dialed. It raises CellFailed or PeerFailed, or returns a remark on what it measured.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from peer import Message, Peer, PeerFailed

ECHO_BYTES = 1 << 20
PERF_BYTES = 64 << 20
STREAMS = 100
PINGS = 5
SETTLE_TIMEOUT = 5.0
"""Seconds until both sides must agree on whether they are connected."""

ALWAYS_SERVED = ("/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0", "/echo/1.0.0")
SERVED_UNLESS = {
    "perf": "/perf/1.0.0",
    "half_close": "/conformance/after-eof/1.0.0",
    "reset_by_them": "/conformance/reset-me/1.0.0",
    "reset_by_us": "/conformance/watch-reset/1.0.0",
}
"""Protocols that a peer serves unless it said that it cannot do the command."""


class CellFailed(Exception):
    """A peer did something other than it should; the message says what."""


@dataclass(slots=True)
class Lane:
    """Two peers and who dials whom, at ``address``, by default the listener's first one."""

    dialer: Peer
    listener: Peer
    key: str = "ed25519"
    key_owner: Peer | None = None
    address: str = ""

    def __post_init__(self) -> None:
        self.address = self.address or self.listener.address

    @property
    def both_ways(self) -> tuple[tuple[Peer, Peer], tuple[Peer, Peer]]:
        return (self.dialer, self.listener), (self.listener, self.dialer)


@dataclass(slots=True)
class Cell:
    """A column: its name, the commands it needs of both peers, and what it does."""

    name: str
    needs: tuple[str, ...]
    run: Callable[[Lane], Awaitable[str]]


def expect(condition: bool, message: str) -> None:
    if not condition:
        raise CellFailed(message)


async def dial(lane: Lane) -> None:
    """Let the dialer dial, and wait until both sides list each other."""
    answer = await lane.dialer.call("dial", address=lane.address, timeout=20)
    expect(
        answer.get("peer") == lane.listener.id,
        f"{lane.dialer.label} dialed {lane.listener.id} and met {answer.get('peer')}",
    )
    await settle(lane, connected=True)


async def hang_up(lane: Lane) -> None:
    """Let the dialer disconnect, and wait until neither side lists the other."""
    await lane.dialer.call("disconnect", peer=lane.listener.id, timeout=20)
    await settle(lane, connected=False)


async def is_connected(peer: Peer, other: Peer) -> bool:
    return other.id in (await peer.call("connections", timeout=10))["peers"]


async def settle(lane: Lane, connected: bool) -> None:
    """Wait until both sides agree on whether they are connected."""
    for peer, other in lane.both_ways:
        deadline = asyncio.get_running_loop().time() + SETTLE_TIMEOUT
        pause = 0.005
        while await is_connected(peer, other) is not connected:
            if asyncio.get_running_loop().time() > deadline:
                state = "does not list" if connected else "still lists"
                raise CellFailed(
                    f"{peer.label} {state} {other.label} as connected after {SETTLE_TIMEOUT:.0f} s"
                )
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.2)


async def connect(lane: Lane) -> str:
    """Dial, dial again, disconnect, dial: both sides must know each time."""
    await dial(lane)
    await dial(lane)
    await hang_up(lane)
    await dial(lane)
    return ""


async def ping(lane: Lane) -> str:
    remarks = []
    for peer, other in lane.both_ways:
        answer = await peer.call("ping", peer=other.id, count=PINGS)
        rtts = answer["rtts"]
        expect(len(rtts) == PINGS, f"{peer.label} got {len(rtts)} of {PINGS} answers")
        expect(all(0 < rtt < 10 for rtt in rtts), f"{peer.label} measured {rtts}")
        remarks.append(f"{min(rtts) * 1e6:.0f} us")
    return ", ".join(remarks)


async def identify(lane: Lane) -> str:
    """What each learned about the other must be what the other says of itself."""
    for peer, other in lane.both_ways:
        answer = await peer.call("identify", peer=other.id)
        _check_identify(lane, peer, other, answer)
    return ""


def _check_identify(lane: Lane, peer: Peer, other: Peer, answer: Message) -> None:
    def same(field: str, expected: str) -> None:
        got = answer.get(field)
        expect(
            got == expected, f"{peer.label} sees {field} {got!r} of {other.label}, not {expected!r}"
        )

    same("peer", other.id)
    same("agent", other.agent)
    served = [p for command, p in SERVED_UNLESS.items() if command not in other.cannot]
    absent = sorted({*ALWAYS_SERVED, *served} - set(answer["protocols"]))
    expect(not absent, f"{peer.label} does not see {', '.join(absent)} of {other.label}")
    key = lane.key if other is lane.key_owner else "ed25519"
    kind = str(answer.get("key_type")).lower()
    expect(kind == key, f"{peer.label} sees a {kind} key of {other.label}, which has {key}")
    if "observed" in other.cannot:
        return
    # Some implementations append the peer id to what they see.
    observed = (answer.get("observed") or "").removesuffix(f"/p2p/{peer.id}")
    listening = lane.address.partition("/p2p/")[0]
    if (bare := _bare(listening)) != listening:  # what lies above is written in several ways
        observed, listening = _bare(observed), bare
    if peer is lane.listener:
        expect(
            observed == listening,
            f"{other.label} says that it reached {peer.label} at {observed}, not {listening}",
        )
    else:
        sockets = _connected_to(listening)
        expect(
            observed in sockets if sockets is not None else observed != "",
            f"{other.label} sees {peer.label} at {observed}, which is none of {sockets}",
        )


def _bare(address: str) -> str:
    """The first two components: /ip4/127.0.0.1/tcp/80/ws -> /ip4/127.0.0.1/tcp/80"""
    return "/".join(address.split("/")[:5])


def _connected_to(listening: str) -> list[str] | None:
    """Addresses of this machine's sockets connected to that one; None where unknown.

    Of UDP all sockets: implementations do not connect them.
    """
    if "/udp/" in listening:
        return _udp_sockets()
    table = Path("/proc/net/tcp")
    if not table.exists() or not listening.startswith("/ip4/"):
        return None
    found = []
    for line in table.read_text().splitlines()[1:]:
        _, local, remote, state = line.split()[:4]
        if state == "01" and _socket_address(remote) == listening:
            found.append(_socket_address(local))
    return found


def _socket_address(text: str) -> str:
    """0100007F:1F90 -> /ip4/127.0.0.1/tcp/8080"""
    host, _, port = text.partition(":")
    numbers = bytes.fromhex(host)[::-1]
    return f"/ip4/{'.'.join(map(str, numbers))}/tcp/{int(port, 16)}"


def _udp_sockets() -> list[str] | None:
    tables = [path for path in map(Path, ("/proc/net/udp", "/proc/net/udp6")) if path.exists()]
    lines = [line for table in tables for line in table.read_text().splitlines()[1:]]
    ports = [int(line.split()[1].rpartition(":")[2], 16) for line in lines]
    return [f"/ip4/127.0.0.1/udp/{port}" for port in ports] if tables else None


def _late(other: Peer) -> dict[str, bool]:
    """Ask for half-closing after the last byte came back, where streams do not survive it."""
    return {"late": True} if "half_close" in other.cannot else {}


async def echo(lane: Lane) -> str:
    for peer, other in lane.both_ways:
        answer = await peer.call("echo", peer=other.id, size=ECHO_BYTES, **_late(other))
        expect(
            answer["received"] == answer["sent"] == ECHO_BYTES,
            f"{peer.label} sent {answer['sent']} and received {answer['received']} bytes",
        )
        expect(answer["equal"] is True, f"{peer.label} received other bytes than it sent")
        expect(answer["sha256"] == pattern_hash(ECHO_BYTES), f"{peer.label} sent other bytes")
    return ""


async def perf(lane: Lane, size: int = PERF_BYTES) -> str:
    remarks = []
    for peer, other in lane.both_ways:
        answer = await peer.call("perf", peer=other.id, upload=size, download=size)
        expect(
            answer["received"] == size,
            f"{peer.label} received {answer['received']} of {size} bytes",
        )
        up, down = answer["upload_seconds"], answer["download_seconds"]
        rates = [f"{size / max(t, 1e-9) / 1e6:.0f}" for t in (up, down)]
        remarks.append(f"{peer.name} up {rates[0]}, down {rates[1]} MB/s")
    return "; ".join(remarks)


async def half_close(lane: Lane) -> str:
    for peer, other in lane.both_ways:
        answer = await peer.call("half_close", peer=other.id)
        expect(answer["equal"] is True, f"{peer.label} got a wrong hash from {other.label}")
    return ""


async def reset(lane: Lane) -> str:
    for peer, other in lane.both_ways:
        answer = await peer.call("reset_by_them", peer=other.id)
        expect(answer["reset"] is True, f"{peer.label} did not see the reset by {other.label}")
        other.forget_events()
        await peer.call("reset_by_us", peer=other.id)
        event = await other.event("stream_reset", "stream_eof", peer=peer.id)
        expect(
            event["event"] == "stream_reset",
            f"{other.label} saw the end of the stream and not the reset by {peer.label}",
        )
    return ""


async def streams(lane: Lane) -> str:
    for peer, other in lane.both_ways:
        answer = await peer.call("many", peer=other.id, count=STREAMS, **_late(other))
        expect(answer["done"] == STREAMS, f"{peer.label}: {answer['done']} of {STREAMS} streams")
    return ""


async def select(lane: Lane) -> str:
    """The first common protocol is agreed on, and no common protocol is an error."""
    for peer, other in lane.both_ways:
        offer = ["/conformance/unknown/1.0.0", "/echo/1.0.0", "/ipfs/ping/1.0.0"]
        answer = await peer.call("open_stream", peer=other.id, protocols=offer)
        agreed = answer["protocol"]
        expect(agreed == "/echo/1.0.0", f"{peer.label} agreed on {agreed} with {other.label}")
        try:
            answer = await peer.call("open_stream", peer=other.id, protocols=offer[:1])
        except PeerFailed:
            expect(peer.alive, f"{peer.label} did not survive a refused protocol")
        else:
            raise CellFailed(f"{peer.label} opened an unknown protocol: {answer.get('protocol')}")
    return ""


def pattern_hash(size: int) -> str:
    """Hash of the bytes that ``echo`` sends, PROTOCOL.md."""
    # The pattern repeats after 251 rows of 256 bytes.
    block = bytes((i * 7 + i // 256) % 251 for i in range(251 * 256))
    return sha256((block * (size // len(block) + 1))[:size]).hexdigest()


CELLS = (
    Cell("connect", ("dial", "disconnect", "connections"), connect),
    Cell("ping", ("ping",), ping),
    Cell("identify", ("identify",), identify),
    Cell("echo", ("echo",), echo),
    Cell("perf", ("perf",), perf),
    Cell("half-close", ("half_close",), half_close),
    Cell("reset", ("reset_by_them", "reset_by_us"), reset),
    Cell("streams", ("many",), streams),
    Cell("select", ("open_stream",), select),
)
KEYS = ("secp256k1", "ecdsa", "rsa")
"""A column for each, run on peers with such a key: connect, ping and identify."""
