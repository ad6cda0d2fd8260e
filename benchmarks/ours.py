"""anyp2p on asyncio or uvloop under the benchmarks' commands: one JSON object per line.

It uses what a user has: `anyp2p.asyncio.Host` with its defaults, its streams, and handlers that
await `read` and `write`. Only ping is answered by the host itself, as with every side.

`--hosts 1`: one host, which serves and dials; two such processes make a pair.
`--hosts 2`: two hosts in one process; commands run on the first, the second one is the peer.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from process import memory as held, say, usage

from anyp2p.asyncio import Host, Stream
from anyp2p.providers.crypto import Cryptography
from anyp2p_core.crypto import KeyType
from anyp2p_core.multiaddr import Multiaddr
from anyp2p_core.peer_id import PeerId

ECHO = "/echo/1.0.0"
PING = "/ipfs/ping/1.0.0"
PERF = "/perf/1.0.0"
LOOPBACK = "/ip4/127.0.0.1/tcp/0"
BLOCK = 65536
BUILT_IN = False
"""Under `--built-in`: echo and perf are the host's services, not handlers of an application."""

Answer = dict[str, Any]


# What is served, unless the built-in services do it. A stream is closed when its handler returns.


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


async def start_host(stack: AsyncExitStack) -> Host:
    host = await stack.enter_async_context(Host(listen=[LOOPBACK], echo=BUILT_IN, perf=BUILT_IN))
    if not BUILT_IN:
        host.set_handler(ECHO, serve_echo)
        host.set_handler(PERF, serve_perf)
    return host


# Commands: (hosts, request) -> the fields of the answer. hosts[0] dials, hosts[-1] is the peer.


async def dial(hosts: list[Host], request: Answer) -> Answer:
    return {"peer": str(await hosts[0].connect(request["address"]))}


async def disconnect(hosts: list[Host], request: Answer) -> Answer:
    await hosts[0].disconnect(PeerId.parse(request["peer"]))
    return {}


async def ping(hosts: list[Host], request: Answer) -> Answer:
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


async def perf(hosts: list[Host], request: Answer) -> Answer:
    peer, upload, download = PeerId.parse(request["peer"]), request["upload"], request["download"]
    if BUILT_IN:
        result = await hosts[0].perf(peer, upload, download)
        return {
            "upload_seconds": result.upload_seconds,
            "download_seconds": result.download_seconds,
            "received": result.downloaded,
        }
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


async def streams(hosts: list[Host], request: Answer) -> Answer:
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


async def connects(hosts: list[Host], request: Answer) -> Answer:
    """Dial until both ends can open streams, then disconnect until both ends forgot it.

    With the peer in this process, its side is waited for too, so that nothing is counted late.
    """
    host, address = hosts[0], Multiaddr(request["address"])
    ends = [(host, PeerId.parse(address.components[-1].value))]
    if len(hosts) == 2:
        ends.append((hosts[1], host.peer_id))
    seconds = cpu = 0.0
    dialing, at_start = Counter[str](), CALLS.copy()
    start_cpu = time.process_time()
    for _ in range(request["count"]):
        before = CALLS.copy()
        start, dial_cpu = time.perf_counter(), time.process_time()
        peer = await host.connect(address)
        while not all(other in end.peers for end, other in ends):
            await asyncio.sleep(0)
        seconds += time.perf_counter() - start
        cpu += time.process_time() - dial_cpu
        dialing += CALLS - before
        await host.disconnect(peer)
        while any(other in end.peers for end, other in ends):
            await asyncio.sleep(0)
    return {
        "seconds": seconds,
        "cpu": cpu,
        "cpu_with_close": time.process_time() - start_cpu,
        "calls": dict(dialing),
        "calls_with_close": dict(CALLS - at_start),
    }


CALLS: Counter[str] = Counter()
"""The public-key operations that went through the provider, under `--counted`."""


def count_calls() -> None:
    """Put a counter around every key that the provider makes from now on."""

    def counted(original: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            if name == "x25519":
                CALLS["generate"] += 1
            return _Counted(original(*args))

        return call

    for name in ("x25519", "generate", "load_private", "load_public"):
        setattr(Cryptography, name, counted(getattr(Cryptography, name), name))


class _Counted:
    """A key of the provider that counts its uses."""

    def __init__(self, key: Any) -> None:
        self._key = key

    def __getattr__(self, name: str) -> Any:
        if name in ("exchange", "sign", "verify"):
            CALLS[name] += 1
        return getattr(self._key, name)


async def primitives(hosts: list[Host], request: Answer) -> Answer:
    """CPU seconds of each public-key operation, through the provider: medians of five rounds."""
    crypto, count = Cryptography(), request.get("count", 200)
    ours, theirs = crypto.x25519(os.urandom(32)), crypto.x25519(os.urandom(32)).public
    signer = crypto.generate(KeyType.ED25519, os.urandom)
    verifier = crypto.load_public(KeyType.ED25519, signer.public)
    message = b"noise-libp2p-static-key:" + bytes(32)
    signature = signer.sign(message)
    operations: dict[str, Callable[[], object]] = {
        "generate": lambda: crypto.x25519(os.urandom(32)),
        "exchange": lambda: ours.exchange(theirs),
        "sign": lambda: signer.sign(message),
        "verify": lambda: verifier.verify(signature, message),
    }
    rounds: dict[str, list[float]] = {name: [] for name in operations}
    for _ in range(5):
        for name, operation in operations.items():
            start = time.process_time()
            for _ in range(count):
                operation()
            rounds[name].append((time.process_time() - start) / count)
    return {"cost": {name: sorted(costs)[2] for name, costs in rounds.items()}}


async def memory(hosts: list[Host], request: Answer) -> Answer:
    """What `count` idle connections to one listening host hold, both ends in this process."""
    count = request["count"]
    async with AsyncExitStack() as stack:
        listener = await start_host(stack)
        dialers = [await start_host(stack) for _ in range(count + 3)]
        for dialer in dialers[:3]:  # the first ones also load code and fill caches
            await dialer.connect(listener.addresses[0])
        await asyncio.sleep(request.get("settle", 1))
        before = held()
        for dialer in dialers[3:]:
            await dialer.connect(listener.addresses[0])
        await asyncio.sleep(request.get("settle", 1))
        after = held()
        if len(listener.peers) < count + 3:
            raise RuntimeError(f"only {len(listener.peers)} of {count + 3} connections are alive")
    return {
        "bytes": (after.resident - before.resident) / count,
        "heap": (after.heap - before.heap) / count,
    }


async def cpu(hosts: list[Host], request: Answer) -> Answer:
    return dict(usage())


COMMANDS: dict[str, Callable[[list[Host], Answer], Awaitable[Answer]]] = {
    function.__name__: function
    for function in (dial, disconnect, ping, perf, streams, connects, primitives, memory, cpu)
}


async def answer(hosts: list[Host], request: Answer) -> None:
    command = COMMANDS.get(request["cmd"])
    if command is None:
        say({"id": request["id"], "ok": False, "error": f"unknown command {request['cmd']}"})
        return
    try:
        result = await command(hosts, request)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        say({"id": request["id"], "ok": False, "error": " ".join(text.split())})
    else:
        say({"id": request["id"], "ok": True, **result})


async def main(args: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    stdin = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    async with AsyncExitStack() as stack:
        hosts = [await start_host(stack) for _ in range(args.hosts)]
        say(
            {
                "event": "ready",
                "peer": str(hosts[-1].peer_id),
                "addresses": [str(address) for address in hosts[-1].addresses],
                "agent": "anyp2p",
                "implementation": f"anyp2p v{_version()} on {args.loop}",
            }
        )
        async with asyncio.TaskGroup() as tasks:
            while line := await stdin.readline():
                request = json.loads(line)
                if request["cmd"] == "stop":
                    say({"id": request["id"], "ok": True})
                    break
                tasks.create_task(answer(hosts, request))


def _version() -> str:
    try:
        return version("anyp2p")
    except PackageNotFoundError:
        return "(checkout)"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--hosts", type=int, choices=(1, 2), default=1)
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("--counted", action="store_true", help="count public-key operations")
    parser.add_argument("--built-in", action="store_true", help="the host's own echo and perf")
    args, _ = parser.parse_known_args()  # the harness also passes what other peers understand
    BUILT_IN = args.built_in
    if args.counted:
        count_calls()
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if args.loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main(args))
