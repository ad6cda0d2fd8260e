"""Scenarios of the gossipsub interop tests, on the simulator and on real sockets.

    python conformance/scripts.py simple-fanout --nodes 32                 simulated
    python conformance/scripts.py subnet-blob-msg --on sockets --speed 10  ten times as fast
    python conformance/scripts.py --params params.json --nodes 32          a script of their own

All nodes are in this process. Exit code 0 if, after the first four, every message reached all other
nodes that subscribed to its topic, once each.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from script_node import Instruction, Log, Player, node_key

from anyp2p.asyncio import Host as SocketHost
from anyp2p.host import BaseHost
from anyp2p.pubsub import GossipConfig
from anyp2p.sim import World

CONNECTIONS = 20
WARM = 120
"""Seconds until the first message."""
PAUSE = 12
FLUSH = 30
MESSAGES = 16
SKIPPED = 4
FULL, SUPER = 50e6 / 8, 1024e6 / 8
"""Bytes per second of four nodes in five, and of the fifth."""
PORT = 9000


def scenario(name: str, nodes: int, draw: random.Random) -> list[Instruction]:
    """A script as the tests' own generator would write it."""
    script: list[Instruction] = []

    def only(node: int, kind: str, **fields: Any) -> None:
        instruction = {"type": kind} | fields
        script.append({"type": "ifNodeIDEquals", "nodeID": node, "instruction": instruction})

    for node in range(nodes):  # heartbeats that do not coincide
        only(node, "initGossipSub", gossipSubParams={"HeartbeatInitialDelay": 10**8 + node * 10**5})
    for node, others in _connections(nodes, draw).items():
        only(node, "connect", connectTo=others)
    if name == "subnet-blob-msg":
        topics, size = ["a-subnet"], 2 * 1024 * 48
        delay = {"type": "setTopicValidationDelay", "topicID": topics[0], "delaySeconds": 0.005}
        script += [delay, {"type": "subscribeToTopic", "topicID": topics[0]}]
    else:
        topics, size = ["topic-a", "topic-b"], 1024
        for node in range(nodes):
            only(node, "subscribeToTopic", topicID=topics[node % 2])
    at = WARM
    script.append({"type": "waitUntil", "elapsedSeconds": at})
    for number in range(MESSAGES):
        message = {"messageID": number, "messageSizeBytes": size, "topicID": draw.choice(topics)}
        only(draw.randrange(nodes), "publish", **message)
        at += PAUSE
        script.append({"type": "waitUntil", "elapsedSeconds": at})
    script.append({"type": "waitUntil", "elapsedSeconds": at + FLUSH})
    return script


def _connections(nodes: int, draw: random.Random) -> dict[int, list[int]]:
    """Who dials whom, so that everybody has 20 connections at least, if there are so many."""
    wanted = min(CONNECTIONS, nodes - 1)
    connected: list[set[int]] = [set() for _ in range(nodes)]
    dials: dict[int, list[int]] = {}
    for node, own in enumerate(connected):
        free = [other for other in range(nodes) if other != node and other not in own]
        for other in draw.sample(free, max(wanted - len(own), 0)):
            own.add(other)
            connected[other].add(node)
            dials.setdefault(node, []).append(other)
    return dials


class Simulated:
    """Nodes in a simulated world."""

    def __init__(self, seed: int) -> None:
        self.world = World(seed)
        self._addresses: dict[int, str] = {}

    def host(self, number: int, config: GossipConfig) -> AbstractAsyncContextManager[BaseHost[Any]]:
        key = node_key(number)
        speed = SUPER if number % 5 == 0 else FULL
        listen = [f"/ip4/0.0.0.0/tcp/{PORT}"]
        host = self.world.host(key, listen=listen, pubsub=config, up=speed, down=speed)
        self._addresses[number] = f"/ip4/{host.machine.ip}/tcp/{PORT}/p2p/{key.peer_id}"
        return host

    def address(self, number: int) -> str:
        return self._addresses.get(number, "")

    def now(self) -> float:
        return self.world.now

    async def sleep(self, seconds: float) -> None:
        await self.world.sleep(seconds)

    def spawn(self, function: Callable[..., Any], *arguments: Any) -> object:
        return self.world.spawn(function, *arguments)

    def run(self, players: list[Player]) -> None:
        tasks = [self.world.spawn(player.play) for player in players]
        for task in tasks:
            self.world.run_task(task, 3600.0)


class Sockets:
    """Nodes on sockets of this machine. ``speed``: how much faster than the script they wait."""

    def __init__(self, speed: float) -> None:
        self._hosts: dict[int, SocketHost] = {}
        self._speed = speed
        self._started = time.monotonic()
        self._tasks: set[asyncio.Future[None]] = set()

    def host(self, number: int, config: GossipConfig) -> AbstractAsyncContextManager[BaseHost[Any]]:
        host = SocketHost(listen=["/ip4/127.0.0.1/tcp/0"], pubsub=config)
        self._hosts[number] = host
        return host

    def address(self, number: int) -> str:
        addresses = self._hosts[number].addresses if number in self._hosts else []
        return str(addresses[0]) if addresses else ""

    def now(self) -> float:
        return (time.monotonic() - self._started) * self._speed

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self._speed)

    def spawn(self, function: Callable[..., Awaitable[None]], *arguments: Any) -> object:
        task = asyncio.ensure_future(function(*arguments))
        self._tasks.add(task)
        return task

    def run(self, players: list[Player]) -> None:
        async def play() -> None:
            self._started = time.monotonic()
            async with asyncio.TaskGroup() as group:
                for player in players:
                    group.create_task(player.play())
            await asyncio.gather(*self._tasks)

        asyncio.run(play())


def judge(log: Log, speed: float) -> tuple[list[str], str]:
    """What is wrong, and what was measured. ``speed``: script seconds in one of the clock."""
    wrong = []
    delays = []
    for number, (author, topic, published) in sorted(log.published.items()):
        if number < SKIPPED:
            continue
        wanted = log.subscribed.get(topic, set()) - {author}
        got = log.received.get(number, {})
        lost = sorted(wanted - got.keys())
        if lost:
            wrong.append(f"message {number} did not reach {len(lost)} of {len(wanted)}: {lost[:8]}")
        again = [node for node, times in got.items() if len(times) > 1]
        if again:
            wrong.append(f"message {number} came more than once to {again[:8]}")
        delays += [(times[0] - published) / speed for times in got.values()]
    if not delays:
        return ["no messages"], ""
    p50, most = statistics.median(delays), max(delays)
    return wrong, f"{len(delays)} deliveries, p50 {p50 * 1e3:.0f} ms, last {most * 1e3:.0f} ms"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("scenario", nargs="?", choices=["subnet-blob-msg", "simple-fanout"])
    parser.add_argument("--params", type=Path, help="a script instead of a scenario")
    parser.add_argument("--nodes", type=int, default=32)
    parser.add_argument("--on", choices=["simulator", "sockets"], default="simulator")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--speed", type=float, default=1.0, help="of the script, on sockets")
    options = parser.parse_args()
    if (options.scenario is None) == (options.params is None):
        parser.error("name a scenario, or give --params")
    if options.params is not None:
        script = json.loads(options.params.read_text())["script"]
    else:
        script = scenario(options.scenario, options.nodes, random.Random(options.seed))
    log = Log()
    place: Simulated | Sockets = Simulated(options.seed)
    if options.on == "sockets":
        place = Sockets(options.speed)
    started = time.monotonic()
    place.run([Player(place, number, script, log) for number in range(options.nodes)])
    wrong, measured = judge(log, options.speed if options.on == "sockets" else 1.0)
    name = options.scenario or options.params.name
    print(f"{name}: {options.nodes} nodes, {options.on}, {measured}", end="; ")
    print(f"took {time.monotonic() - started:.1f} s")
    for line in wrong:
        print(f"FAIL {line}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
