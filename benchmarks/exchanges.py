"""What is measured, as an application of any host that can be awaited: asyncio's and trio's."""

import os
import time
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from process import say, usage

from anyp2p.host import BaseHost
from anyp2p.stream import Stream
from anyp2p_core.peer_id import PeerId

ECHO = "/echo/1.0.0"
PING = "/ipfs/ping/1.0.0"
PERF = "/perf/1.0.0"
LOOPBACK = "/ip4/127.0.0.1/tcp/0"
BLOCK = 65536

Answer = dict[str, Any]
Hosts = list[BaseHost[Any]]
Command = Callable[[Hosts, Answer], Awaitable[Answer]]


# What is served. A stream is closed when its handler returns.


async def serve_echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)


async def serve_perf(stream: Stream) -> None:
    left = int.from_bytes(await stream.readexactly(8), "big")
    while await stream.read():
        pass
    while left:
        size = min(left, BLOCK)
        await stream.write(bytes(size))
        left -= size


# Commands: (hosts, request) -> the fields of the answer. hosts[0] dials, hosts[-1] is the peer.


async def dial(hosts: Hosts, request: Answer) -> Answer:
    return {"peer": str(await hosts[0].connect(request["address"]))}


async def disconnect(hosts: Hosts, request: Answer) -> Answer:
    await hosts[0].disconnect(PeerId.parse(request["peer"]))
    return {}


async def ping(hosts: Hosts, request: Answer) -> Answer:
    stream = await hosts[0].open_stream(PeerId.parse(request["peer"]), PING)
    rtts = []
    for _ in range(request.get("count", 1)):
        payload = os.urandom(32)
        start = time.perf_counter()
        await stream.write(payload)
        if await stream.readexactly(32) != payload:
            raise RuntimeError("the pong differs from the ping")
        rtts.append(time.perf_counter() - start)
    await stream.close()
    return {"rtts": rtts}


async def perf(hosts: Hosts, request: Answer) -> Answer:
    peer, upload, download = PeerId.parse(request["peer"]), request["upload"], request["download"]
    block = bytes(BLOCK)
    stream = await hosts[0].open_stream(peer, PERF)
    start = time.perf_counter()
    await stream.write(download.to_bytes(8, "big"))
    while upload:
        size = min(upload, BLOCK)
        await stream.write(block if size == BLOCK else block[:size])
        upload -= size
    await stream.close_write()
    received = len(await stream.read())
    half = time.perf_counter()
    while data := await stream.read():
        received += len(data)
    end = time.perf_counter()
    await stream.close()
    return {"upload_seconds": half - start, "download_seconds": end - half, "received": received}


async def streams(hosts: Hosts, request: Answer) -> Answer:
    peer, payload = PeerId.parse(request["peer"]), bytes(32)
    start = time.perf_counter()
    for _ in range(request["count"]):
        stream = await hosts[0].open_stream(peer, ECHO)
        await stream.write(payload)
        await stream.close_write()
        received = 0
        while data := await stream.read():
            received += len(data)
        if received != 32:
            raise RuntimeError("the echo is not complete")
        await stream.close()
    return {"seconds": time.perf_counter() - start}


async def cpu(hosts: Hosts, request: Answer) -> Answer:
    return dict(usage())


COMMANDS: dict[str, Command] = {
    function.__name__: function for function in (dial, disconnect, ping, perf, streams, cpu)
}


def ready(hosts: list[Any], name: str) -> None:
    """Say where the peer is, the last of the hosts."""
    say(
        {
            "event": "ready",
            "peer": str(hosts[-1].peer_id),
            "addresses": [str(address) for address in hosts[-1].addresses],
            "agent": "anyp2p",
            "implementation": f"anyp2p v{_version()} on {name}",
        }
    )


async def answer(commands: Mapping[str, Command], hosts: Hosts, request: Answer) -> None:
    """Carry out a command, and say what came of it."""
    try:
        result = await commands[request["cmd"]](hosts, request)
    except Exception as error:
        say({"id": request["id"], "ok": False, "error": one_line(error)})
    else:
        say({"id": request["id"], "ok": True, **result})


def one_line(error: Exception) -> str:
    """What went wrong."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def _version() -> str:
    try:
        return version("anyp2p")
    except PackageNotFoundError:
        return "(checkout)"
