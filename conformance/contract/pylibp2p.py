"""The same contract as kaddht.py on py-libp2p, in whose virtual environment this runs."""

import os
import sys

import trio
from libp2p import new_host
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.records.validator import Validator
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr
from redis_client import Redis

WAIT = 60.0
QUERY = 90.0
POLL = 0.1
GREETING = "hello from "


class AcceptAll(Validator):
    """The namespace "example"."""

    def validate(self, key, value):
        pass

    def select(self, key, values):
        return 0


async def wait_for(redis, name):
    with trio.fail_after(WAIT):
        while not (value := redis.get(name)):
            await trio.sleep(POLL)
    return value


async def join(host, dht, address):
    info = info_from_p2p_addr(Multiaddr(address))
    with trio.fail_after(WAIT):
        await host.connect(info)
        while not await dht.add_peer(info.peer_id):
            await trio.sleep(POLL)
    # Its lookups ask this node itself as soon as others tell of it, and never come back.
    lookup = dht.peer_routing.find_closest_peers_network

    async def without_us(*args, **options):
        return [peer for peer in await lookup(*args, **options) if peer != host.get_id()]

    dht.peer_routing.find_closest_peers_network = without_us


async def run(role, redis, key):
    content, value_key = f"interop-test-key-{key}", f"/example/data/{key}"
    host = new_host(muxer_preference="YAMUX")
    async with host.run([Multiaddr(f"/ip4/{redis.own_ip()}/tcp/0")]):
        dht = KadDHT(host, DHTMode.CLIENT if role == "querier" else DHTMode.SERVER)
        dht.register_validator("example", AcceptAll())
        async with background_trio_service(dht):
            if role == "bootstrap":
                address = str(host.get_addrs()[0])
                own = f"/p2p/{host.get_id()}"
                redis.set(f"{key}_bootstrap_addr", address.removesuffix(own) + own)
                await trio.sleep_forever()
            door = await wait_for(redis, f"{key}_bootstrap_addr")
            if role == "provider":
                await join(host, dht, door)
                if not await dht.provide(content):
                    raise LookupError("nobody took the provider record")
                await dht.put_value(value_key, f"{GREETING}py-libp2p client".encode())
                redis.set(f"{key}_provider_done", "done")
                await trio.sleep_forever()
            await wait_for(redis, f"{key}_provider_done")
            await join(host, dht, door)
            with trio.fail_after(QUERY):
                found = await dht.find_providers(content)
                value = await dht.get_value(value_key)
        if not found:
            raise LookupError("no provider was found")
        if not (value or b"").startswith(GREETING.encode()):
            raise LookupError(f"the value is {value!r}")
        print("status: pass", flush=True)
        os._exit(0)  # its host waits for connections that are still open


def main():
    try:
        trio.run(run, os.environ["ROLE"], Redis(os.environ["REDIS_ADDR"]), os.environ["TEST_KEY"])
    except BaseException as error:
        print(f"error: {type(error).__name__}: {error}")
        print("status: fail")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
