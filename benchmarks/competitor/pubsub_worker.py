"""Fully meshed nodes of py-libp2p in one process, under the commands of `../pubsub_mesh.py`.

Its gossipsub as it ships, with two changes without which it would lose messages here on purpose:
its spam protection, 10 messages per second of a peer, is off, and a heartbeat comes every second
instead of every two minutes. One task takes the messages of each node.
"""

import argparse
import json
import logging
import os
import sys
import time
from contextlib import AsyncExitStack
from importlib.metadata import version
from pathlib import Path

import trio
from libp2p import new_host
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V12, GossipSub
from libp2p.pubsub.pubsub import Pubsub
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

sys.path.append(str(Path(__file__).resolve().parent.parent))
from process import say, usage
from worker import LOOPBACK, address_of

TOPIC = "benchmark"
PATIENCE = 30
HEAD = 16


class Mesh:
    def __init__(self, hosts, pubsubs):
        self.hosts = hosts
        self.pubsubs = pubsubs
        self.delivered = 0
        self.target = 0
        self.reached = trio.Event()

    async def listen(self, place, subscription):
        own = bytes(self.hosts[place].get_id().to_bytes())
        while True:
            message = await subscription.get()
            if message.from_id != own:
                self.delivered += 1
                if self.delivered >= self.target:
                    self.reached.set()

    async def wait_for(self, count):
        self.target = count
        self.reached = trio.Event()
        if self.delivered < count:
            with trio.move_on_after(PATIENCE):
                await self.reached.wait()
        return self.delivered >= count


async def mesh(nodes, request):
    for place, host in enumerate(nodes.hosts):
        for other in nodes.hosts[:place]:
            await host.connect(info_from_p2p_addr(Multiaddr(address_of(other))))
    with trio.fail_after(PATIENCE):
        while not all(
            len(one.peer_topics.get(TOPIC, ())) >= len(nodes.hosts) - 1 for one in nodes.pubsubs
        ):
            await trio.sleep(0.1)
    await trio.sleep(2.5)
    meshes = [len(one.router.mesh.get(TOPIC, ())) for one in nodes.pubsubs]
    return {"mesh": sum(meshes) / len(meshes)}


async def rounds(nodes, request):
    count, burst, size = request["count"], request["burst"], request["size"]
    nodes.delivered = 0
    started, before = time.perf_counter(), time.process_time()
    expected = 0
    for _ in range(count):
        for _ in range(burst):
            for place, pubsub in enumerate(nodes.pubsubs):
                head = place.to_bytes(8, "big") + time.perf_counter_ns().to_bytes(8, "big")
                await pubsub.publish(TOPIC, head + bytes(size - HEAD))
        expected += burst * len(nodes.hosts) * (len(nodes.hosts) - 1)
        if not await nodes.wait_for(expected):
            break
    return {
        "seconds": time.perf_counter() - started,
        "cpu": time.process_time() - before,
        "delivered": nodes.delivered,
        "expected": expected,
    }


async def cpu(nodes, request):
    return usage()


COMMANDS = {function.__name__: function for function in (mesh, rounds, cpu)}


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, default=10)
    args, _ = parser.parse_known_args()
    logging.disable(logging.CRITICAL)
    async with AsyncExitStack() as stack:
        hosts, pubsubs = [], []
        nursery = await stack.enter_async_context(trio.open_nursery())
        for _ in range(args.nodes):
            host = new_host(muxer_preference="YAMUX")
            await stack.enter_async_context(host.run([LOOPBACK]))
            router = GossipSub(
                protocols=[PROTOCOL_ID_V12],
                degree=6,
                degree_low=5,
                degree_high=12,
                heartbeat_interval=1,
                spam_protection_enabled=False,
            )
            pubsub = Pubsub(host, router)
            await stack.enter_async_context(background_trio_service(pubsub))
            await stack.enter_async_context(background_trio_service(router))
            await pubsub.wait_until_ready()
            hosts.append(host)
            pubsubs.append(pubsub)
        nodes = Mesh(hosts, pubsubs)
        for place, pubsub in enumerate(pubsubs):
            nursery.start_soon(nodes.listen, place, await pubsub.subscribe(TOPIC))
        say(
            {
                "event": "ready",
                "peer": str(hosts[-1].get_id()),
                "addresses": [address_of(hosts[-1])],
                "agent": "py-libp2p",
                "implementation": f"py-libp2p v{version('libp2p')}, trio v{version('trio')}",
            }
        )
        while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            request = json.loads(line)
            if request["cmd"] == "stop":
                break
            try:
                result = await COMMANDS[request["cmd"]](nodes, request)
            except Exception as error:
                text = " ".join(f"{type(error).__name__}: {error}".split())
                say({"id": request["id"], "ok": False, "error": text})
            else:
                say({"id": request["id"], "ok": True, **result})
        # Closing py-libp2p's hosts in order can hang; a benchmark's worker owes nobody a goodbye.
        sys.stdout.flush()
        os._exit(0)


if __name__ == "__main__":
    trio.run(main)
