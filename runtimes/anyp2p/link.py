"""One socket of a ``SocketHost``, and the tasks that use it.

Closing never pulls a socket away from a task that waits for it: the event loop would forget the
task, or hand it the next socket with the same number. ``abort`` wakes whoever waits, and the last
one out closes.

    reader  --------------- ends: abort() --release
    writer      ---- while the socket is full --release -> users == 0: closed
"""

import socket
from collections.abc import Callable
from contextlib import suppress


class Link:
    """``users`` counts the tasks that may wait for the socket."""

    __slots__ = (
        "aborted", "draining", "error", "fd", "half_close", "paused", "pending", "resumed", "sock",
        "users",
    )  # fmt: skip

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.fd = sock.fileno()
        """For loops that would print a socket into errors that they catch themselves."""
        self.users = 1
        self.pending: memoryview | None = None
        """What the full socket did not take yet."""
        self.draining = False
        self.half_close = False
        """Close our direction when nothing is pending."""
        self.aborted = False
        self.paused = False
        self.resumed: Callable[[], object] | None = None
        """Whom to tell that reading goes on."""
        self.error: OSError | None = None

    def send(self, data: bytes | memoryview) -> None:
        """Send what the socket takes; the rest becomes ``pending``."""
        try:
            sent = self.sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self.fail(error)
            return
        self.pending = memoryview(data)[sent:] if sent < len(data) else None

    def finish(self) -> None:
        """Close our direction, after what is pending."""
        self.half_close = True
        if self.pending is None:
            self._shut_down(socket.SHUT_WR)

    def fail(self, error: OSError) -> None:
        """The socket broke."""
        self.error = self.error or error
        self.abort()

    def abort(self) -> None:
        """Drop everything and wake whoever waits for this socket."""
        if not self.aborted:
            self.aborted = True
            self.pending = None
            self._shut_down(socket.SHUT_RDWR)
            self.resume()

    def end(self) -> None:
        """The reader is done with it. Nobody has to be woken when nobody else uses the socket."""
        if self.users > 1:
            self.abort()
        self.aborted = True

    def resume(self) -> None:
        """Read again."""
        self.paused = False
        if self.resumed is not None:
            self.resumed()

    def release(self) -> bool:
        """One task fewer uses the socket; returns whether it was the last one and closed it."""
        self.users -= 1
        if not self.users:
            self.sock.close()
        return not self.users

    def _shut_down(self, how: int) -> None:
        # Not connected any more? Whoever waits for it learns that by itself.
        with suppress(OSError):
            self.sock.shutdown(how)
