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
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import exchanges
from exchanges import ECHO, LOOPBACK, PERF, Answer, Command, Hosts
from process import memory as held, say

from anyp2p.asyncio import Host
from anyp2p.providers.crypto import Cryptography
from anyp2p_core.crypto import KeyType
from anyp2p_core.multiaddr import Multiaddr
from anyp2p_core.peer_id import PeerId

BUILT_IN = False
"""Under `--built-in`: echo and perf are the host's services, not handlers of an application."""


async def start_host(stack: AsyncExitStack) -> Host:
    host = await stack.enter_async_context(
        Host(listen=[LOOPBACK], security=["noise"], echo=BUILT_IN, perf=BUILT_IN)
    )
    if not BUILT_IN:
        host.set_handler(ECHO, exchanges.serve_echo)
        host.set_handler(PERF, exchanges.serve_perf)
    return host


async def perf(hosts: Hosts, request: Answer) -> Answer:
    if not BUILT_IN:
        return await exchanges.perf(hosts, request)
    peer = PeerId.parse(request["peer"])
    result = await hosts[0].perf(peer, request["upload"], request["download"])
    return {
        "upload_seconds": result.upload_seconds,
        "download_seconds": result.download_seconds,
        "received": result.downloaded,
    }


async def connects(hosts: Hosts, request: Answer) -> Answer:
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


async def primitives(hosts: Hosts, request: Answer) -> Answer:
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


async def memory(hosts: Hosts, request: Answer) -> Answer:
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


COMMANDS: dict[str, Command] = {
    **exchanges.COMMANDS,
    **{function.__name__: function for function in (perf, connects, primitives, memory)},
}


async def main(args: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    stdin = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    async with AsyncExitStack() as stack:
        hosts: Hosts = [await start_host(stack) for _ in range(args.hosts)]
        exchanges.ready(hosts, args.loop)
        async with asyncio.TaskGroup() as tasks:
            while line := await stdin.readline():
                request = json.loads(line)
                if request["cmd"] == "stop":
                    say({"id": request["id"], "ok": True})
                    break
                tasks.create_task(exchanges.answer(COMMANDS, hosts, request))


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
