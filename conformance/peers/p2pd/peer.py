"""The p2pd peer: speaks PROTOCOL.md on stdin and stdout and drives a libp2p daemon.

    python peer.py DAEMON_BINARY [--listen MADDR]...

Identify and ping are run by this program over streams of the daemon, so they prove the daemon's
transport, security, muxer and negotiation, and the other side's identify and ping.
"""

import argparse
import asyncio
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import wire
from daemon import Daemon, DaemonError, Stream
from dht import DhtCommands

Message = dict[str, Any]

AGENT = "p2pd/0.1"
IMPLEMENTATION = "go-libp2p v0.32.1 (p2pd)"
COMMAND_TIMEOUT = 60
CHUNK = 1 << 16
DHT: dict[str, list[str]] = {"off": [], "server": ["-dhtServer"], "client": ["-dhtClient"]}
"""Options of the daemon for those of --dht."""
KEY_TYPES = ("rsa", "ed25519", "secp256k1", "ecdsa")
ECHO, PING, IDENTIFY = "/echo/1.0.0", "/ipfs/ping/1.0.0", "/ipfs/id/1.0.0"


async def echo_handler(stream: Stream) -> None:
    while data := await stream.reader.read(CHUNK):
        stream.writer.write(data)
        await stream.writer.drain()


class Commands(DhtCommands):
    """One method for each command; its keyword arguments are the command's."""

    def __init__(self, daemon: Daemon, process: asyncio.subprocess.Process) -> None:
        self._daemon = daemon
        self._process = process

    async def dial(self, address: str) -> Message:
        host, _, peer = address.partition("/p2p/")
        await self._daemon.connect(peer, host)
        return {"peer": peer}

    async def disconnect(self, peer: str) -> Message:
        await self._daemon.disconnect(peer)
        return {}

    async def connections(self) -> Message:
        return {"peers": await self._daemon.peers()}

    async def ping(self, peer: str, count: int = 1) -> Message:
        stream = await self._daemon.open_stream(peer, [PING])
        try:
            rtts = []
            for _ in range(count):
                payload = os.urandom(32)
                started = time.perf_counter()
                stream.writer.write(payload)
                if await stream.reader.readexactly(32) != payload:
                    raise DaemonError("the ping came back changed")
                rtts.append(time.perf_counter() - started)
            return {"rtts": rtts}
        finally:
            await stream.close()

    async def identify(self, peer: str) -> Message:
        stream = await self._daemon.open_stream(peer, [IDENTIFY])
        try:
            data = await stream.reader.read(-1)
        finally:
            await stream.close()
        size, at = wire.read_varint(data, 0)
        if len(data) - at != size:
            raise DaemonError(f"identify of {len(data) - at} bytes announced {size}")
        fields = wire.parse(data[at:])
        key = wire.blob(fields, 1)
        addresses = [wire.address_text(data) for data in wire.blobs(fields, 2)]
        return {
            "peer": _peer_of(key),
            "agent": wire.text(fields, 6),
            "protocol_version": wire.text(fields, 5),
            "protocols": [data.decode() for data in wire.blobs(fields, 3)],
            "addresses": [address for address in addresses if address is not None],
            "observed": wire.address_text(wire.blob(fields, 4)),
            "signed_record": None,
            "key_type": KEY_TYPES[wire.number(wire.parse(key), 1)],
        }

    async def echo(self, peer: str, size: int, late: bool = True) -> Message:
        data = pattern(size)
        started = time.perf_counter()
        stream = await self._daemon.open_stream(peer, [ECHO])
        received = await _echo(stream, data)
        return {
            "sent": size,
            "received": len(received),
            "sha256": hashlib.sha256(received).hexdigest(),
            "equal": received == data,
            "seconds": time.perf_counter() - started,
        }

    async def many(self, peer: str, count: int, size: int = 1024, late: bool = True) -> Message:
        data = pattern(size)
        opening = (self._daemon.open_stream(peer, [ECHO]) for _ in range(count))
        streams = await asyncio.gather(*opening)
        results = await asyncio.gather(*(_echo(stream, data) for stream in streams))
        return {"done": sum(received == data for received in results)}

    async def streams(self, peer: str, count: int) -> Message:
        data = pattern(32)
        started = time.perf_counter()
        for _ in range(count):
            stream = await self._daemon.open_stream(peer, [ECHO])
            if await _echo(stream, data) != data:
                raise DaemonError("the echo is not what was sent")
        return {"seconds": time.perf_counter() - started}

    async def connects(self, address: str, count: int) -> Message:
        seconds = 0.0
        for _ in range(count):
            started = time.perf_counter()
            peer = (await self.dial(address))["peer"]
            seconds += time.perf_counter() - started
            await self._daemon.disconnect(peer)
            while peer in await self._daemon.peers():
                await asyncio.sleep(0.001)
        return {"seconds": seconds}

    async def open_stream(self, peer: str, protocols: list[str]) -> Message:
        stream = await self._daemon.open_stream(peer, protocols)
        await stream.close()
        return {"protocol": stream.protocol}

    async def cpu(self) -> Message:
        """Of the daemon and of this program together."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
        resident = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
        own = time.process_time()
        return {"seconds": ticks / os.sysconf("SC_CLK_TCK") + own, "rss": resident}


def pattern(size: int) -> bytes:
    block = bytes((i * 7 + i // 256) % 251 for i in range(251 * 256))
    return (block * (size // len(block) + 1))[:size]


def _peer_of(key: bytes) -> str:
    """The peer id of a public key: the key itself if it is short, else its hash."""
    if len(key) <= 42:
        return wire.peer_id_text(bytes((0, len(key))) + key)
    return wire.peer_id_text(bytes((0x12, 32)) + hashlib.sha256(key).digest())


async def _echo(stream: Stream, data: bytes) -> bytes:
    """Write while reading, and close once as much came back: half-closing would cut the answer."""

    async def write() -> None:
        for at in range(0, len(data), CHUNK):
            stream.writer.write(data[at : at + CHUNK])
            await stream.writer.drain()

    writing = asyncio.create_task(write())
    try:
        return await stream.reader.readexactly(len(data))
    except asyncio.IncompleteReadError as error:
        return error.partial
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await stream.close()


class Front:
    """Reads commands from stdin, runs them concurrently, writes answers to stdout."""

    def __init__(self, commands: Commands) -> None:
        self._commands: dict[str, Callable[..., Awaitable[Message]]] = {
            name: getattr(commands, name)
            for name in (*vars(Commands), *vars(DhtCommands))
            if not name.startswith("_")
        }
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Return at the end of stdin or after the stop command."""
        lines = asyncio.StreamReader(limit=4 << 20)
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        while line := await lines.readline():
            request: Message = json.loads(line)
            number, name = request.pop("id"), request.pop("cmd")
            if name == "stop":
                emit({"id": number, "ok": True})
                return
            task = asyncio.create_task(self._answer(number, name, request))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _answer(self, number: int, name: str, arguments: Message) -> None:
        command = self._commands.get(name)
        if command is None:
            emit({"id": number, "ok": False, "error": f"unknown command {name}"})
            return
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT):
                answer = await command(**arguments)
        except Exception as error:
            reason = str(error) or type(error).__name__
            emit({"id": number, "ok": False, "error": reason})
        else:
            emit({"id": number, "ok": True} | answer)


def emit(message: Message) -> None:
    print(json.dumps(message), flush=True)


async def serve(binary: str, listen: list[str], more: list[str], directory: Path) -> None:
    control = directory / "control"
    process = await asyncio.create_subprocess_exec(
        binary,
        *("-listen", f"/unix{control}", "-hostAddrs", ",".join(listen), "-bootstrapPeers", ""),
        *("-relay=0", "-q", *more),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=sys.stderr,
    )
    try:
        await _wait_for(control, process)
        daemon = Daemon(control)
        await daemon.serve({ECHO: echo_handler})
        peer, addresses = await daemon.identity()
        ready = {
            "event": "ready",
            "peer": peer,
            "addresses": [f"{address}/p2p/{peer}" for address in addresses],
            "agent": AGENT,
            "implementation": IMPLEMENTATION,
        }
        emit(ready)
        await Front(Commands(daemon, process)).run()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _wait_for(control: Path, process: asyncio.subprocess.Process) -> None:
    """The socket's file is there a moment before somebody listens."""
    deadline = time.monotonic() + 20
    while True:
        try:
            _, writer = await asyncio.open_unix_connection(str(control))
        except OSError:
            if process.returncode is not None or time.monotonic() > deadline:
                sys.exit(f"the daemon did not start; exit code {process.returncode}")
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--listen", action="append")
    parser.add_argument("--key", choices=["ed25519"])
    parser.add_argument("--muxers", choices=["yamux"])
    parser.add_argument("--security", choices=["noise"])
    parser.add_argument("--dht", default="off", choices=DHT)
    options = parser.parse_args()
    listen = options.listen or ["/ip4/127.0.0.1/tcp/0"]
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(serve(options.binary, listen, DHT[options.dht], Path(directory)))


if __name__ == "__main__":
    main()
