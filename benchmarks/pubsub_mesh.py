"""Fully meshed nodes of anyp2p in one process, on asyncio, under the commands of a benchmark.

    python pubsub_mesh.py --nodes 10      one JSON object per line on stdin and stdout

    mesh                            connect everybody to everybody, wait until all meshes are there
    rounds  count, burst, size      in each round all nodes publish `burst` messages, then wait for
                                    all of their deliveries
    steady  rate, count, size       messages at a rate, each of another node, at once
    dial    address, heard          every node dials; wait until `heard` peers are in the topic
    flood   rate, count, size       messages of the first node at a rate
    received                        how many deliveries there were; the next one counts from 0
    verify  size                    CPU seconds that verifying one message takes alone

Answers hold `delivered` and `expected` (by others than the author), `seconds` and `cpu`. What
the workers of py-libp2p and js answer to are `mesh`, `rounds` and `cpu`.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from contextlib import AsyncExitStack
from typing import Any

from exchanges import LOOPBACK, Answer, one_line, ready
from process import say, usage

from anyp2p.asyncio import Host
from anyp2p.pubsub import GossipConfig

TOPIC = "benchmark"
PATIENCE = 30.0
HEAD = 16
"""Bytes of a message that say who wrote it when; the rest is zeros."""


def name_of(place: int) -> int:
    """An author, told from those of other processes."""
    return os.getpid() << 32 | place


class Mesh:
    """All nodes, and what came to them."""

    def __init__(self, hosts: list[Host]) -> None:
        self.hosts = hosts
        self.delays: list[float] = []
        self.target = 0
        self.reached = asyncio.Event()
        self.connected = False

    async def listen(self, host: Host) -> None:
        """Take the messages of one node."""
        own = name_of(self.hosts.index(host))
        async with host.pubsub.subscribe(TOPIC) as messages:
            async for message in messages:
                data = message.data
                if int.from_bytes(data[:8], "big") != own:
                    sent = int.from_bytes(data[8:HEAD], "big")
                    self.delays.append((time.perf_counter_ns() - sent) / 1e9)
                    if len(self.delays) >= self.target:
                        self.reached.set()

    async def connect(self) -> None:
        """Everybody to everybody, one dial per pair."""
        for place, host in enumerate(self.hosts):
            for other in self.hosts[:place]:
                await host.connect(other.addresses[0])

    async def settle(self) -> None:
        """Wait until everybody knows of everybody."""
        for host in self.hosts:
            await host.pubsub.wait_for_peers(TOPIC, len(self.hosts) - 1, timeout=PATIENCE)
        await asyncio.sleep(2.5)

    async def publish(self, place: int, size: int) -> None:
        """One message."""
        head = name_of(place).to_bytes(8, "big") + time.perf_counter_ns().to_bytes(8, "big")
        await self.hosts[place].pubsub.publish(TOPIC, head + bytes(size - HEAD))

    async def wait_for(self, count: int) -> bool:
        """Whether so many deliveries come in time."""
        self.target = count
        self.reached.clear()
        if len(self.delays) < count:
            try:
                await asyncio.wait_for(self.reached.wait(), PATIENCE)
            except TimeoutError:
                return False
        return True


async def mesh(nodes: Mesh, request: Answer) -> Answer:
    await nodes.connect()
    await nodes.settle()
    meshes = [len(host.pubsub.mesh(TOPIC)) for host in nodes.hosts]
    return {"mesh": sum(meshes) / len(meshes)}


async def rounds(nodes: Mesh, request: Answer) -> Answer:
    count, burst, size = request["count"], request["burst"], request["size"]
    others = len(nodes.hosts) - 1
    nodes.delays.clear()
    started, before = time.perf_counter(), time.process_time()
    expected = 0
    for _ in range(count):
        for _ in range(burst):
            for place in range(len(nodes.hosts)):
                await nodes.publish(place, size)
        expected += burst * len(nodes.hosts) * others
        if not await nodes.wait_for(expected):
            break
    return {
        "seconds": time.perf_counter() - started,
        "cpu": time.process_time() - before,
        "delivered": len(nodes.delays),
        "expected": expected,
    }


async def steady(nodes: Mesh, request: Answer) -> Answer:
    rate, count, size = request["rate"], request["count"], request["size"]
    nodes.delays.clear()
    if not nodes.connected:
        nodes.connected = True
        await nodes.connect()
    started, before = time.perf_counter(), time.process_time()
    for number in range(count):
        pause = started + number / rate - time.perf_counter()
        if pause > 0:
            await asyncio.sleep(pause)
        await nodes.publish(number % len(nodes.hosts), size)
    expected = count * (len(nodes.hosts) - 1)
    await asyncio.sleep(0.5)
    quick = len(nodes.delays)
    await nodes.wait_for(expected)
    delays = sorted(nodes.delays)
    return {
        "seconds": time.perf_counter() - started,
        "cpu": time.process_time() - before,
        "delivered": len(delays),
        "within_half_a_second": quick,
        "expected": expected,
        "p50": delays[len(delays) // 2],
        "p99": delays[min(len(delays) * 99 // 100, len(delays) - 1)],
        "worst": delays[-1],
    }


async def dial(nodes: Mesh, request: Answer) -> Answer:
    for host in nodes.hosts if "address" in request else ():
        await host.connect(request["address"])
    for host in nodes.hosts:
        await host.pubsub.wait_for_peers(TOPIC, request["heard"], timeout=PATIENCE)
    return {}


async def flood(nodes: Mesh, request: Answer) -> Answer:
    started = time.perf_counter()
    for number in range(request["count"]):
        pause = started + number / request["rate"] - time.perf_counter()
        if pause > 0:
            await asyncio.sleep(pause)
        await nodes.publish(0, request["size"])
    await nodes.hosts[0].pubsub.drain()
    return {"seconds": time.perf_counter() - started}


async def received(nodes: Mesh, request: Answer) -> Answer:
    count = len(nodes.delays)
    nodes.delays.clear()
    return {"count": count}


async def verify(nodes: Mesh, request: Answer) -> Answer:
    key = nodes.hosts[0].node.key
    message = bytes(request["size"] + 80)
    signature = key.sign(message)
    public = key.public
    best = float("inf")
    for _ in range(5):
        before = time.process_time()
        for _ in range(500):
            if not public.verify(signature, message):
                raise RuntimeError("a good signature is refused")
        best = min(best, (time.process_time() - before) / 500)
    return {"cost": best}


async def cpu(nodes: Mesh, request: Answer) -> Answer:
    return dict(usage())


COMMANDS = {
    function.__name__: function
    for function in (mesh, rounds, steady, dial, flood, received, verify, cpu)
}


async def main(args: argparse.Namespace) -> None:
    async with AsyncExitStack() as stack:
        hosts = [
            await stack.enter_async_context(
                Host(listen=[LOOPBACK], security=["noise"], pubsub=GossipConfig())
            )
            for _ in range(args.nodes)
        ]
        nodes = Mesh(hosts)
        listening = [asyncio.create_task(nodes.listen(host)) for host in hosts]
        await asyncio.sleep(0)
        ready(hosts, "asyncio")
        while line := await asyncio.to_thread(sys.stdin.readline):
            request: dict[str, Any] = json.loads(line)
            if request["cmd"] == "stop":
                break
            try:
                result = await COMMANDS[request["cmd"]](nodes, request)
            except Exception as error:
                say({"id": request["id"], "ok": False, "error": one_line(error)})
            else:
                say({"id": request["id"], "ok": True, **result})
        for task in listening:
            task.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, default=10)
    asyncio.run(main(parser.parse_known_args()[0]))
