"""One measurement each: a command of a worker, with the CPU time of all processes around it.

Every function returns a sample, a dict of figures per operation:

    wall            seconds
    cpu             user + system seconds of both ends
    cpu_with_close  the same with the close of the connection (connect only)
    bytes, heap     memory per connection, both ends (memory only)
    rss             resident bytes of the process (import only)
"""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from sides import ROOT, Built, Peer, python

Sample = dict[str, float]
Calls = dict[str, float]
GB = 1_000_000_000
SLOW = 300.0
"""Seconds that the slowest command may take."""


@dataclass(slots=True)
class Sizes:
    """How much of each thing one sample is made of. py-libp2p gets less: its figures are long."""

    upload: int
    pings: int
    streams: int
    connects: int
    connections: int
    slow_upload: int
    slow_streams: int
    slow_connects: int
    """Calls of py-libp2p's connect(), at half a second each."""


FULL = Sizes(256 << 20, 2000, 1000, 300, 200, 64 << 20, 300, 4)
QUICK = Sizes(64 << 20, 500, 200, 60, 50, 16 << 20, 60, 2)


class Pair:
    """Two ends of one implementation: two processes, or one that holds both."""

    def __init__(self, client: Peer, server: Peer) -> None:
        self.client = client
        self.server = server
        self.peer = ""

    @classmethod
    async def start(cls, built: Built, processes: int) -> "Pair":
        if processes == 1:
            peer = await Peer.start(built, extra=("--hosts", "2"))
            return cls(peer, peer)
        server = await Peer.start(built)
        try:
            return cls(await Peer.start(built), server)
        except BaseException:
            await server.stop()
            raise

    async def connect(self) -> None:
        answer = await self.client.call("dial", address=self.server.address)
        self.peer = answer["peer"]

    async def disconnect(self) -> None:
        await self.client.call("disconnect", peer=self.peer)

    async def stop(self) -> None:
        for end in self._ends():
            await end.stop()

    async def cpu(self) -> float:
        return sum([float((await end.call("cpu"))["seconds"]) for end in self._ends()])

    def _ends(self) -> list[Peer]:
        return [self.client] if self.client is self.server else [self.client, self.server]


async def upload(pair: Pair, size: int) -> Sample:
    """One stream, one way; per GB."""
    before = await pair.cpu()
    answer = await pair.client.call("perf", peer=pair.peer, upload=size, download=0, timeout=SLOW)
    cpu = await pair.cpu() - before
    return {"wall": answer["upload_seconds"] / size * GB, "cpu": cpu / size * GB}


async def ping(pair: Pair, count: int) -> Sample:
    """Round trips of 32 bytes on one open stream; per round trip."""
    before = await pair.cpu()
    answer = await pair.client.call("ping", peer=pair.peer, count=count, timeout=SLOW)
    cpu = await pair.cpu() - before
    return {"wall": sum(answer["rtts"]) / count, "cpu": cpu / count}


async def streams(pair: Pair, count: int) -> Sample:
    """New stream, negotiation, 32 bytes echoed, close, one after the other; per stream."""
    before = await pair.cpu()
    answer = await pair.client.call("streams", peer=pair.peer, count=count, timeout=SLOW)
    cpu = await pair.cpu() - before
    return {"wall": answer["seconds"] / count, "cpu": cpu / count}


async def connects(pair: Pair, count: int, command: str = "connects") -> Sample:
    """Dial and close, one after the other; per connection. The pair is not connected before.

    `cpu`: until both ends are ready, when one process holds both and tells it.
    """
    before = await pair.cpu()
    answer = await pair.client.call(command, address=pair.server.address, count=count, timeout=SLOW)
    total = await pair.cpu() - before
    sample = {"wall": answer["seconds"] / count, "cpu_with_close": total / count}
    if "cpu" in answer and pair.client is pair.server:
        sample["cpu"] = answer["cpu"] / count
    return sample


async def public_key_calls(built: Built, count: int) -> dict[str, Calls]:
    """The public-key operations of a connection at both ends, counted in the provider.

    By window, as in a sample: `cpu` and `cpu_with_close`.
    """
    peer = await Peer.start(built, extra=("--hosts", "2", "--counted"))
    try:
        answer = await peer.call("connects", address=peer.address, count=count, timeout=SLOW)
    finally:
        await peer.stop()
    windows = {"cpu": answer["calls"], "cpu_with_close": answer["calls_with_close"]}
    return {
        window: {name: made / count for name, made in calls.items()}
        for window, calls in windows.items()
    }


async def bound(pair: Pair, calls: dict[str, Calls]) -> Sample:
    """CPU seconds that those operations take alone, measured in the process of `pair`."""
    costs = (await pair.client.call("primitives"))["cost"]
    return {
        window: sum(costs[name] * made for name, made in counted.items())
        for window, counted in calls.items()
    }


async def memory(built: Built, count: int) -> Sample:
    """What a connection adds to a process that holds both its ends; bytes per connection."""
    peer = await Peer.start(built)
    try:
        answer = await peer.call("memory", count=count, timeout=SLOW)
    finally:
        await peer.stop()
    return {"bytes": answer["bytes"], "heap": answer["heap"]}


IMPORT = """
import json, os, time
start, cpu = time.perf_counter(), time.process_time()
import {module}
wall, cpu = time.perf_counter() - start, time.process_time() - cpu
with open("/proc/self/statm") as file:
    rss = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
print(json.dumps(dict(wall=wall, cpu=cpu, rss=rss)))
"""


def importing(built: Built, module: str) -> Sample:
    """Time of one import statement in a fresh interpreter, and its resident bytes afterwards."""
    environment = dict(built.environment)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # else it would be compiled each time
    done = subprocess.run(
        [python(built), "-c", IMPORT.format(module=module)],
        env=environment,
        cwd=Path(ROOT).anchor,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ImportError(lines[-1])
    sample: Sample = json.loads(done.stdout)
    return sample
