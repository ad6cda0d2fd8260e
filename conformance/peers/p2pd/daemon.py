"""A client of the libp2p daemon's control socket.

shim                                   daemon
  |  CONNECT, LIST_PEERS, DISCONNECT ... |   one unix connection for each request
  |--- Request (length-prefixed) ------->|
  |<-- Response -------------------------|
  |  STREAM_OPEN                         |
  |--- Request ------------------------->|
  |<-- Response with StreamInfo ---------|   from here on the connection is the stream
  |  STREAM_HANDLER(address)             |
  |<== StreamInfo, then the stream ======|   the daemon connects for each inbound stream
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import wire

IDENTIFY, CONNECT, STREAM_OPEN, STREAM_HANDLER, DHT, LIST_PEERS, DISCONNECT = 0, 1, 2, 3, 4, 5, 7
DHT_BEGIN, DHT_END = 0, 2
ERROR = 1
SECONDS = 20
"""How long the daemon may try to connect or to open a stream."""


Fields = dict[int, list[wire.Value]]


class DaemonError(Exception):
    """The daemon refused; the message is its own."""


@dataclass(slots=True)
class Stream:
    """A libp2p stream as the daemon passes it through. Closing one way closes all of it."""

    peer: str
    protocol: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def close(self) -> None:
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()


Handler = Callable[[Stream], Awaitable[object]]


class Daemon:
    """The daemon at a control socket, and the server for the streams that it passes on."""

    def __init__(self, control: Path) -> None:
        self._control = control
        self._handlers: dict[str, Handler] = {}
        self._server: asyncio.Server | None = None

    async def serve(self, handlers: dict[str, Handler]) -> None:
        """Register these protocols."""
        self._handlers = handlers
        self._server = await asyncio.start_server(self._on_stream, "127.0.0.1", 0, backlog=1000)
        port = self._server.sockets[0].getsockname()[1]
        address = wire.address_bytes(f"/ip4/127.0.0.1/tcp/{port}")
        protocols = ((2, protocol) for protocol in handlers)
        await self._ask(STREAM_HANDLER, (4, wire.message((1, address), *protocols, (3, 0))))

    async def identity(self) -> tuple[str, list[str]]:
        """Peer id and listening addresses."""
        answer = await self._ask(IDENTIFY)
        fields = wire.parse(wire.blob(answer, 4))
        addresses = [wire.address_text(data) for data in wire.blobs(fields, 2)]
        return wire.peer_id_text(wire.blob(fields, 1)), [a for a in addresses if a is not None]

    async def connect(self, peer: str, address: str) -> None:
        fields = ((1, wire.peer_id_bytes(peer)), (2, wire.address_bytes(address)), (3, SECONDS))
        await self._ask(CONNECT, (2, wire.message(*fields)))

    async def disconnect(self, peer: str) -> None:
        await self._ask(DISCONNECT, (7, wire.message((1, wire.peer_id_bytes(peer)))))

    async def peers(self) -> list[str]:
        answer = await self._ask(LIST_PEERS)
        infos = [wire.parse(data) for data in wire.blobs(answer, 6)]
        return [wire.peer_id_text(wire.blob(info, 1)) for info in infos]

    async def dht(self, kind: int, *fields: tuple[int, wire.Value]) -> list[Fields]:
        """The results of a DHT request; all of them, if it has many."""
        reader, writer = await asyncio.open_unix_connection(str(self._control))
        try:
            request = wire.message((1, kind), *fields)
            answer = await _exchange(reader, writer, DHT, (5, request))
            first = wire.parse(wire.blob(answer, 5))
            results: list[Fields] = []
            if 5 not in answer:
                return results
            if wire.number(first, 1) != DHT_BEGIN:
                return [first]
            while True:
                result = wire.parse(await _read(reader))
                if wire.number(result, 1) == DHT_END:
                    return results
                results.append(result)
        finally:
            writer.close()

    async def open_stream(self, peer: str, protocols: Sequence[str]) -> Stream:
        offered = ((2, protocol) for protocol in protocols)
        request = wire.message((1, wire.peer_id_bytes(peer)), *offered, (3, SECONDS))
        reader, writer = await asyncio.open_unix_connection(str(self._control))
        try:
            answer = await _exchange(reader, writer, STREAM_OPEN, (3, request))
        except BaseException:
            writer.close()
            raise
        info = wire.parse(wire.blob(answer, 3))
        return Stream(peer, wire.text(info, 3), reader, writer)

    async def _ask(self, kind: int, *fields: tuple[int, bytes]) -> dict[int, list[wire.Value]]:
        reader, writer = await asyncio.open_unix_connection(str(self._control))
        try:
            return await _exchange(reader, writer, kind, *fields)
        finally:
            writer.close()

    async def _on_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = wire.parse(await _read(reader))
        peer, protocol = wire.peer_id_text(wire.blob(info, 1)), wire.text(info, 3)
        stream = Stream(peer, protocol, reader, writer)
        try:
            await self._handlers[protocol](stream)
        except OSError:
            pass  # the other side is gone
        finally:
            await stream.close()


async def _exchange(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    kind: int,
    *fields: tuple[int, bytes],
) -> dict[int, list[wire.Value]]:
    request = wire.message((1, kind), *fields)
    writer.write(wire.varint(len(request)) + request)
    answer = wire.parse(await _read(reader))
    if wire.number(answer, 1) == ERROR:
        raise DaemonError(wire.text(wire.parse(wire.blob(answer, 2)), 1))
    return answer


async def _read(reader: asyncio.StreamReader) -> bytes:
    size = shift = 0
    while True:
        (byte,) = await reader.readexactly(1)
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return await reader.readexactly(size)
