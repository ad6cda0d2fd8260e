"""What the commands of PROTOCOL.md do on a Host, and the protocols that the peer serves.

Nothing here knows the event loop: all awaiting goes through the Host, its streams and ``Tools``.
"""

import hashlib
import json
import resource
import time
from collections.abc import Awaitable, Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, TypeVar

from channels import channel_of
from dht_commands import DhtCommands
from pubsub_commands import Inbox, PubSubCommands

from anyp2p.host import BaseHost
from anyp2p.providers.crypto import Cryptography
from anyp2p.providers.entropy import OsEntropy
from anyp2p.stream import Stream
from anyp2p_core.crypto import KeyType
from anyp2p_core.errors import StreamReset
from anyp2p_core.keys import PrivateKey
from anyp2p_core.limits import Limits
from anyp2p_core.multiaddr import Multiaddr
from anyp2p_core.peer_id import PeerId

T = TypeVar("T")
Message = dict[str, Any]

VERSION = version("anyp2p")
AGENT = f"anyp2p/{VERSION}"
COMMAND_TIMEOUT = 60.0
RESET_TIMEOUT = 10.0
CHUNK = 1 << 16
ECHO = "/echo/1.0.0"
AFTER_EOF = "/conformance/after-eof/1.0.0"
RESET_ME = "/conformance/reset-me/1.0.0"
WATCH_RESET = "/conformance/watch-reset/1.0.0"
HALF_CLOSE_BYTES = 100_000

LIMITS = Limits(max_inbound_streams=1024, max_negotiating_streams=1024, max_inbound_pings=1024)


class Tools(Protocol):
    """What only a runtime can do."""

    async def together(self, *functions: Callable[[], Awaitable[T]]) -> list[T]:
        """Run them at the same time; the first error cancels the others and is raised."""
        ...

    async def within(self, seconds: float, function: Callable[[], Awaitable[T]]) -> T:
        """Raise TimeoutError if it takes longer."""
        ...

    async def sleep(self, seconds: float) -> None: ...


def emit(message: Message) -> None:
    print(json.dumps(message), flush=True)


def pattern(size: int) -> bytes:
    """The bytes that echo sends: (i * 7 + i // 256) % 251, which repeats after 251 * 256."""
    block = bytes((i * 7 + i // 256) % 251 for i in range(min(size, 251 * 256)))
    return (block * (size // max(len(block), 1) + 1))[:size]


def make_key(kind: str) -> PrivateKey:
    return PrivateKey.generate(Cryptography(), OsEntropy(), KeyType[kind.upper()])


def ready(host: BaseHost[Any]) -> Message:
    """The first line of stdout."""
    return {
        "event": "ready",
        "peer": str(host.peer_id),
        "addresses": [str(address) for address in host.addresses],
        "agent": AGENT,
        "implementation": f"anyp2p {VERSION}",
    }


def serve(host: BaseHost[Any]) -> None:
    """Register the three protocols that exist for conformance; the Host has the others."""

    @host.handle(AFTER_EOF)
    async def after_eof(stream: Stream) -> None:
        digest = hashlib.sha256()
        while data := await stream.read(CHUNK):
            digest.update(data)
        await stream.write(digest.hexdigest().encode())

    @host.handle(RESET_ME)
    async def reset_me(stream: Stream) -> None:
        await stream.readexactly(1)
        await stream.reset()

    @host.handle(WATCH_RESET)
    async def watch_reset(stream: Stream) -> None:
        await stream.readexactly(1)
        await stream.write(b"y")
        try:
            while await stream.read(CHUNK):
                pass
        except StreamReset as error:
            emit({"event": "stream_reset", "peer": str(stream.peer), "code": error.code})
        else:
            emit({"event": "stream_eof", "peer": str(stream.peer)})


class Commands(DhtCommands, PubSubCommands):
    """One method for each command; its keyword arguments are the command's."""

    def __init__(self, host: BaseHost[Any], tools: Tools) -> None:
        self._host = host
        self._tools = tools
        self._inboxes: dict[str, Inbox] = {}

    async def run(self, request: Message) -> None:
        """Run one command and print its answer; never raises because of the command."""
        number, name = request.pop("id"), request.pop("cmd")
        command = None if name.startswith("_") or name == "run" else getattr(self, name, None)
        if command is None:
            emit({"id": number, "ok": False, "error": f"unknown command {name}"})
            return
        try:
            answer = await self._tools.within(COMMAND_TIMEOUT, lambda: command(**request))
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            emit({"id": number, "ok": False, "error": reason})
        else:
            emit({"id": number, "ok": True} | answer)

    async def dial(self, address: str) -> Message:
        return {"peer": str(await self._connect(address))}

    async def _connect(self, address: str) -> PeerId:
        """At exactly this address: a Host tries what else it knows of the peer, too."""
        peer = PeerId.parse(Multiaddr(address).get("p2p") or "")
        if peer not in self._host.peers:
            self._host.node.peers.set_addresses(peer, (), 0.0)
        return await self._host.connect(address)

    async def disconnect(self, peer: str) -> Message:
        await self._host.disconnect(peer)
        return {}

    async def connections(self) -> Message:
        channels: dict[str, list[str]] = {}
        for connection in self._host.node.connections():
            agreed = connection.negotiated
            name = channel_of(connection.remote, agreed.security, agreed.muxer)
            channels.setdefault(str(connection.peer), []).append(name)
        return {"peers": [str(peer) for peer in self._host.peers], "channels": channels}

    async def ping(self, peer: str, count: int = 1) -> Message:
        # The host keeps one ping stream open for each connection.
        return {"rtts": [await self._host.ping(peer) for _ in range(count)]}

    async def identify(self, peer: str) -> Message:
        info = await self._host.identify(peer)
        return {
            "peer": str(info.peer),
            "agent": info.agent,
            "protocol_version": info.protocol_version,
            "protocols": list(info.protocols),
            "addresses": [str(address) for address in info.addresses],
            "observed": str(info.observed) if info.observed is not None else None,
            "signed_record": info.signed_record,
            "key_type": info.public_key and info.public_key.kind.name.lower(),
        }

    async def echo(self, peer: str, size: int, late: bool = False) -> Message:
        data = pattern(size)
        started = time.perf_counter()
        received = await self._exchange(await self._host.open_stream(peer, ECHO), data, late)
        return {
            "sent": size,
            "received": len(received),
            "sha256": hashlib.sha256(received).hexdigest(),
            "equal": received == data,
            "seconds": time.perf_counter() - started,
        }

    async def perf(self, peer: str, upload: int, download: int) -> Message:
        result = await self._host.perf(peer, upload, download)
        return {
            "upload_seconds": result.upload_seconds,
            "download_seconds": result.download_seconds,
            "received": result.downloaded,
        }

    async def half_close(self, peer: str) -> Message:
        data = pattern(HALF_CLOSE_BYTES)
        answer = await self._exchange(await self._host.open_stream(peer, AFTER_EOF), data)
        return {"equal": answer == hashlib.sha256(data).hexdigest().encode()}

    async def reset_by_them(self, peer: str) -> Message:
        stream = await self._host.open_stream(peer, RESET_ME)
        try:
            await stream.write(b"x")
            await self._tools.within(RESET_TIMEOUT, lambda: stream.read(1))
        except StreamReset as error:
            return {"reset": True, "code": error.code}
        except TimeoutError:
            return {"reset": False, "code": None}
        finally:
            await stream.close()
        return {"reset": False, "code": None}

    async def reset_by_us(self, peer: str) -> Message:
        stream = await self._host.open_stream(peer, WATCH_RESET)
        await stream.write(b"x")
        await stream.readexactly(1)
        await stream.reset()
        return {}

    async def many(self, peer: str, count: int, size: int = 1024, late: bool = False) -> Message:
        data = pattern(size)
        streams: list[Stream] = []
        first = data[:1] or b"x"

        async def begin() -> None:
            # The first byte back proves that the other side took the stream.
            stream = await self._host.open_stream(peer, ECHO)
            streams.append(stream)
            await stream.write(first)
            if await stream.readexactly(1) != first:
                raise ValueError("the echo is not what was sent")

        async def finish(stream: Stream) -> bool:
            return await self._exchange(stream, data[1:], late) == data[1:]

        await self._tools.together(*[begin] * count)
        equal = await self._tools.together(*(partial(finish, stream) for stream in streams))
        return {"done": sum(equal)}

    async def streams(self, peer: str, count: int) -> Message:
        data = pattern(32)
        started = time.perf_counter()
        for _ in range(count):
            stream = await self._host.open_stream(peer, ECHO)
            await stream.write(data)
            await stream.close_write()
            if await _read_all(stream) != data:
                raise ValueError("the echo is not what was sent")
            await stream.close()
        return {"seconds": time.perf_counter() - started}

    async def connects(self, address: str, count: int) -> Message:
        seconds = 0.0
        for _ in range(count):
            started = time.perf_counter()
            peer = await self._connect(address)
            seconds += time.perf_counter() - started
            await self._host.disconnect(peer)
            while peer in self._host.peers:
                await self._tools.sleep(0.001)
        return {"seconds": seconds}

    async def open_stream(self, peer: str, protocols: list[str]) -> Message:
        stream = await self._host.open_stream(peer, *protocols, optimistic=False)
        await stream.close()
        return {"protocol": stream.protocol}

    async def cpu(self) -> Message:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {"seconds": usage.ru_utime + usage.ru_stime, "rss": _resident()}

    async def _exchange(self, stream: Stream, data: bytes, late: bool = False) -> bytes:
        """Write while reading; half-close after writing, or ``late``: once as much came back."""

        async def write() -> bytes:
            await stream.write(data)
            if not late:
                await stream.close_write()
            return b""

        async def read() -> bytes:
            return await stream.readexactly(len(data)) if late else await _read_all(stream)

        try:
            _, received = await self._tools.together(write, read)
            return received
        finally:
            await stream.close()


async def _read_all(stream: Stream) -> bytes:
    chunks = []
    while data := await stream.read(CHUNK):
        chunks.append(data)
    return b"".join(chunks)


def _resident() -> int | None:
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return None
    return int(statm.read_text().split()[1]) * resource.getpagesize()
