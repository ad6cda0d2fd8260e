"""A stream that is a ``trio.abc.HalfCloseableStream``."""

from collections.abc import Iterator
from contextlib import contextmanager
from operator import index

import trio

from anyp2p_core.errors import Error, LocalError

from .stream import Stream as BaseStream, StreamBusy


class Stream(BaseStream, trio.abc.HalfCloseableStream):
    """A stream with trio's own interface beside ``read`` and ``write``."""

    __slots__ = ()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Up to ``max_bytes`` bytes, b"" at the end of the stream."""
        await trio.lowlevel.checkpoint()
        if max_bytes is None:
            max_bytes = 65536
        elif index(max_bytes) < 1:
            raise ValueError("max_bytes must be 1 or more")
        with self._trio_errors():
            return await self.read(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of ``data``; if cancelled, a prefix of it."""
        with self._trio_errors():
            await trio.lowlevel.checkpoint()
            if data:
                await self.write(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room in our buffer."""
        with self._trio_errors():
            await trio.lowlevel.checkpoint()
            await self.wait_writable()

    async def send_eof(self) -> None:
        """Close our direction."""
        with self._trio_errors():
            await trio.lowlevel.checkpoint()
            await self.close_write()

    async def aclose(self) -> None:
        """Close both directions; a peer that goes on sending is told with a reset."""
        self.abandon(graceful=True, discard=False)
        await trio.lowlevel.checkpoint()

    async def __anext__(self) -> bytes:
        data = await self.receive_some()
        if not data:
            raise StopAsyncIteration
        return data

    @contextmanager
    def _trio_errors(self) -> Iterator[None]:
        if self.closed:
            raise trio.ClosedResourceError("this stream was closed")
        try:
            yield
        except StreamBusy as error:
            raise trio.BusyResourceError(str(error)) from None
        except LocalError as error:
            raise trio.ClosedResourceError(str(error)) from None
        except Error as error:
            raise trio.BrokenResourceError(str(error)) from error
