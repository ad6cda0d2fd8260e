"""What the dht_ commands of PROTOCOL.md do on ``host.dht``.

Like ``commands``, nothing here knows the event loop.
"""

import time
from argparse import Namespace
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from anyp2p.dht import Content
from anyp2p.host import BaseHost
from anyp2p_core.kad.config import KadConfig
from anyp2p_core.kad.service import Kad
from anyp2p_core.multiaddr import Multiaddr

if TYPE_CHECKING:
    from commands import Message, Tools


class Largest:
    """The validator of the namespace "example": all values are valid, the largest is best."""

    def validate(self, key: bytes, value: bytes, wall: float) -> None:
        """Everything is."""

    def select(self, key: bytes, values: Sequence[bytes]) -> int:
        return values.index(max(values))


def make_dht(options: Namespace) -> Kad | None:
    """The network that --dht and --dht-protocol name."""
    if options.dht == "off":
        return None
    config = KadConfig(protocol=options.dht_protocol, server=options.dht == "server")
    return Kad(config, validators={"example": Largest()})


class DhtCommands:
    """One method for each command; its keyword arguments are the command's."""

    _host: BaseHost[Any]
    _tools: "Tools"

    async def dht_bootstrap(self, addresses: list[str]) -> "Message":
        dht = self._host.dht
        # As if the program had been started with them.
        dht.kad.config.bootstrap = tuple(map(Multiaddr, addresses))
        return {"size": await dht.bootstrap()}

    async def dht_find_peer(self, peer: str) -> "Message":
        found = await self._host.dht.find_peer(peer)
        return {"addresses": [str(address) for address in found.addresses]}

    async def dht_closest(self, key: str) -> "Message":
        found = await self._host.dht.closest_peers(bytes.fromhex(key))
        return {"peers": [str(contact.peer) for contact in found.peers]}

    async def dht_provide(self, multihash: str = "", cid: str = "") -> "Message":
        await self._host.dht.provide(_content(multihash, cid))
        return {}

    async def dht_find_providers(
        self, multihash: str = "", cid: str = "", count: int = 1, timeout: float = 60.0
    ) -> "Message":
        started = time.perf_counter()
        found: dict[str, None] = {}

        async def search() -> None:
            async with self._host.dht.find_providers(_content(multihash, cid), count) as providers:
                async for provider in providers:
                    found[str(provider.peer)] = None
                    if len(found) == count:  # the search goes on for their addresses
                        break

        with suppress(TimeoutError):  # what was found until then counts
            await self._tools.within(timeout, search)
        return {"peers": list(found), "seconds": time.perf_counter() - started}

    async def dht_put(self, key: str, value: str) -> "Message":
        await self._host.dht.put(bytes.fromhex(key), bytes.fromhex(value))
        return {}

    async def dht_get(self, key: str) -> "Message":
        return {"value": (await self._host.dht.get(bytes.fromhex(key))).value.hex()}

    async def dht_table(self) -> "Message":
        return {"peers": [str(entry.peer) for entry in self._host.dht.table.entries()]}

    async def dht_mode(self) -> "Message":
        return {"mode": "server" if self._host.dht.server else "client"}


def _content(multihash: str, cid: str) -> Content:
    return cid or bytes.fromhex(multihash)
