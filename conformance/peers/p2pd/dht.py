"""The DHT commands that the daemon's control socket offers.

shim                                    daemon
  |--- Request DHT: what, key ... ------>|
  |<-- Response: one result -------------|   find peer, get, put, provide
  |<-- Response: begin ------------------|   find providers, closest peers
  |<-- result, result ..., end ----------|   each length-prefixed
"""

import asyncio
import time
from typing import Any

import wire
from daemon import Daemon, DaemonError

Message = dict[str, Any]

FIND_PEER, FIND_PROVIDERS, CLOSEST, GET_VALUE, PUT_VALUE, PROVIDE = 0, 2, 3, 5, 7, 8
END = 2
RAW = 0x55
SECONDS = 50
PATIENCE = 10.0
"""Seconds for dht_bootstrap until a peer is in the table."""


class DhtCommands:
    """One method for each command; its keyword arguments are the command's."""

    _daemon: Daemon

    async def dht_bootstrap(self, addresses: list[str]) -> Message:
        own, _ = await self._daemon.identity()
        for address in addresses:
            host, _, peer = address.partition("/p2p/")
            await self._daemon.connect(peer, host)
        # The daemon does not tell its table: it is good enough when a lookup finds somebody.
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return {"size": len(await self._closest(wire.peer_id_bytes(own)))}
            except DaemonError:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.02)

    async def dht_find_peer(self, peer: str) -> Message:
        (answer,) = await self._daemon.dht(FIND_PEER, (2, wire.peer_id_bytes(peer)), (7, SECONDS))
        info = wire.parse(wire.blob(answer, 2))
        found = [wire.address_text(data) for data in wire.blobs(info, 2)]
        return {"addresses": [address for address in found if address is not None]}

    async def dht_closest(self, key: str) -> Message:
        return {"peers": await self._closest(bytes.fromhex(key))}

    async def _closest(self, key: bytes) -> list[str]:
        answers = await self._daemon.dht(CLOSEST, (4, key), (7, SECONDS))
        return [wire.peer_id_text(wire.blob(answer, 3)) for answer in answers]

    async def dht_provide(self, multihash: str) -> Message:
        await self._daemon.dht(PROVIDE, (3, _cid(multihash)), (7, SECONDS))
        return {}

    async def dht_find_providers(
        self, multihash: str, count: int = 1, timeout: float = SECONDS
    ) -> Message:
        started = time.perf_counter()
        fields = ((3, _cid(multihash)), (6, count or 1000), (7, int(timeout)))
        answers = await self._daemon.dht(FIND_PROVIDERS, *fields)
        infos = [wire.parse(wire.blob(answer, 2)) for answer in answers]
        peers = [wire.peer_id_text(wire.blob(info, 1)) for info in infos]
        return {"peers": peers, "seconds": time.perf_counter() - started}

    async def dht_put(self, key: str, value: str) -> Message:
        fields = ((4, bytes.fromhex(key)), (5, bytes.fromhex(value)), (7, SECONDS))
        await self._daemon.dht(PUT_VALUE, *fields)
        return {}

    async def dht_get(self, key: str) -> Message:
        answers = await self._daemon.dht(GET_VALUE, (4, bytes.fromhex(key)), (7, SECONDS))
        return {"value": wire.blob(answers[0], 3).hex()}


def _cid(multihash: str) -> bytes:
    """A binary CID of version 1: the daemon takes nothing else."""
    return wire.varint(1) + wire.varint(RAW) + bytes.fromhex(multihash)
