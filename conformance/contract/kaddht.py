"""The DHT contract of the unified tests, on anyp2p: one program, three roles.

bootstrap                provider                       querier
   | server                 | server                       | client
   |-- address ----> redis -|-> join, provide, put         |
   |                        |-- done ----------> redis ----|-> join, find providers, get
   | until it is stopped    | until it is stopped          | status: pass, exit code 0

Environment: ROLE, REDIS_ADDR as host:port, and TEST_KEY, which names the run.
"""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable

from redis_client import Redis

from anyp2p.asyncio import Host
from anyp2p_core.errors import Error
from anyp2p_core.kad.config import KadConfig
from anyp2p_core.kad.records import AcceptAll
from anyp2p_core.kad.service import Kad
from anyp2p_core.multiaddr import Multiaddr

WAIT = 60.0
"""Seconds for another role to get ready."""
QUERY = 90.0
POLL = 0.1
GREETING = "hello from "


class Run:
    """One run of the contract."""

    def __init__(self, redis: Redis, key: str) -> None:
        self._redis = redis
        self._key = key
        self.content = f"interop-test-key-{key}".encode()
        """What is provided: these very bytes stand on the wire, and are no multihash."""
        self.value_key = f"/example/data/{key}".encode()

    def host(self, bootstrap: str = "", *, server: bool) -> Host:
        doors = (Multiaddr(bootstrap),) if bootstrap else ()
        kad = Kad(KadConfig(server=server, bootstrap=doors), validators={"example": AcceptAll()})
        return Host(listen=[f"/ip4/{self._redis.own_ip()}/tcp/0"], dht=kad)

    async def wait_for(self, name: str) -> str:
        """What another role says under a name, once it does."""
        async with asyncio.timeout(WAIT):
            while not (value := self._redis.get(f"{self._key}_{name}")):
                await asyncio.sleep(POLL)
        return value

    def say(self, name: str, value: str) -> None:
        self._redis.set(f"{self._key}_{name}", value)


async def bootstrap(run: Run) -> None:
    async with run.host(server=True) as host:
        run.say("bootstrap_addr", str(host.addresses[0]))
        await asyncio.Event().wait()


async def provider(run: Run) -> None:
    async with run.host(await run.wait_for("bootstrap_addr"), server=True) as host:
        await joined(host)
        await host.dht.provide(run.content)
        await host.dht.put(run.value_key, f"{GREETING}python client".encode())
        run.say("provider_done", "done")
        await asyncio.Event().wait()


async def querier(run: Run) -> None:
    door = await run.wait_for("bootstrap_addr")
    await run.wait_for("provider_done")
    async with run.host(door, server=False) as host, asyncio.timeout(QUERY):
        await joined(host)
        started = time.perf_counter()
        async with host.dht.find_providers(run.content) as providers:
            found = [provider async for provider in providers]
        seconds = time.perf_counter() - started
        if not found:
            raise LookupError("no provider was found")
        value = (await host.dht.get(run.value_key)).value
        if not value.startswith(GREETING.encode()):
            raise LookupError(f"the value is {value!r}")
    print("status: pass")
    print(f"# {len(found)} found in {seconds * 1e3:.1f} ms, {value.decode()}", file=sys.stderr)


async def joined(host: Host) -> None:
    """Until the table has somebody; the other side may not have started its DHT yet."""
    async with asyncio.timeout(WAIT):
        while True:
            try:
                await host.dht.bootstrap()
                return
            except Error:
                await asyncio.sleep(POLL)


ROLES = {"bootstrap": bootstrap, "provider": provider, "querier": querier}


def main() -> int:
    try:
        role = ROLES[os.environ["ROLE"]]
        run = Run(Redis(os.environ["REDIS_ADDR"]), os.environ["TEST_KEY"])
    except KeyError as missing:
        print(f"not set, or not a role: {missing}", file=sys.stderr)
        return 2
    try:
        asyncio.run(_run(role(run)))
    except Exception as error:
        print(f"error: {type(error).__name__}: {error}")
        print("status: fail")
        return 1
    return 0


async def _run(role: Awaitable[None]) -> None:
    await role


if __name__ == "__main__":
    sys.exit(main())
