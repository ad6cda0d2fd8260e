"""A stream that is an ``anyio.abc.ByteStream``, with typed attributes."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import anyio
import anyio.abc

from anyp2p_core.errors import Error, LocalError
from anyp2p_core.multiaddr import Multiaddr
from anyp2p_core.peer_id import PeerId

from .host import BaseHost
from .stream import Stream as BaseStream, StreamBusy


class StreamAttribute(anyio.TypedAttributeSet):
    """What ``stream.extra`` knows. Addresses are missing where the transport has none."""

    peer_id: PeerId = anyio.typed_attribute()
    protocol: str = anyio.typed_attribute()
    local_address: Multiaddr = anyio.typed_attribute()
    remote_address: Multiaddr = anyio.typed_attribute()


class Stream(BaseStream, anyio.abc.ByteStream):
    """A stream with anyio's own interface beside ``read`` and ``write``."""

    __slots__ = ("_attributes",)

    def __init__(
        self, host: BaseHost[Any], stream: int, peer: PeerId, protocol: str, inbound: bool
    ) -> None:
        super().__init__(host, stream, peer, protocol, inbound)
        connection = host.node.stream(stream).connection
        values: dict[Any, Any] = {
            StreamAttribute.peer_id: peer,
            StreamAttribute.protocol: protocol,
            StreamAttribute.local_address: connection.local,
            StreamAttribute.remote_address: connection.remote,
        }
        self._attributes = {key: value for key, value in values.items() if value is not None}

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return {key: partial(self._attributes.get, key) for key in self._attributes}

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Up to ``max_bytes`` bytes. Raises ``anyio.EndOfStream`` at the end."""
        with self._anyio_errors("receiving from"):
            await anyio.lowlevel.checkpoint()
            data = await self.read(max_bytes)
        if not data:
            raise anyio.EndOfStream
        return data

    async def send(self, item: bytes) -> None:
        """Send all of ``item``; if cancelled, a prefix of it."""
        with self._anyio_errors("sending to"):
            await anyio.lowlevel.checkpoint()
            await self.write(item)

    async def send_eof(self) -> None:
        """Close our direction."""
        with self._anyio_errors("sending to"):
            await anyio.lowlevel.checkpoint()
            await self.close_write()

    async def aclose(self) -> None:
        """Close both directions; a peer that goes on sending is told with a reset."""
        self.abandon(graceful=True, discard=False)
        await anyio.lowlevel.checkpoint()

    async def __anext__(self) -> bytes:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    @contextmanager
    def _anyio_errors(self, doing: str) -> Iterator[None]:
        if self.closed:
            raise anyio.ClosedResourceError
        try:
            yield
        except StreamBusy:
            raise anyio.BusyResourceError(doing) from None
        except LocalError:
            raise anyio.ClosedResourceError from None
        except Error as error:
            raise anyio.BrokenResourceError(str(error)) from error
