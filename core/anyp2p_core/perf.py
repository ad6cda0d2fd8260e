"""/perf/1.0.0: how fast bytes move over one stream.

Spec: https://github.com/libp2p/specs/blob/master/perf/perf.md

    opener    u64 big-endian: bytes wanted, then its upload, FIN  ->
                                                                  <-  the bytes wanted, FIN

    opener    UPLOADING --all written--> WAITING --first byte--> DOWNLOADING --FIN--> finished
"""

from .connection import Connection
from .errors import LocalError, RemoteError
from .events import PerfFailed, PerfFinished, PerfProgressed
from .muxer import Stream
from .service import Service

PROTOCOL = "/perf/1.0.0"
CHUNK = bytes(65507)
"""As much as one full frame carries."""
PROGRESS_EVERY = 0.25
"""Seconds between two ``PerfProgressed`` events."""


class _Pump:
    """Writes a number of zero bytes and then the end, as fast as the stream takes them."""

    __slots__ = ("left", "_connection", "_stream")

    def __init__(self, connection: Connection, stream: Stream, size: int) -> None:
        self.left = size
        self._connection = connection
        self._stream = stream

    def run(self, now: float) -> None:
        """Go on; ``on_writable`` of the stream has to call it again."""
        stream = self._stream
        if self._connection.closing:  # which delivers what was written, but waits for no more
            stream.reset()
            return
        while self.left:
            chunk = CHUNK if self.left >= len(CHUNK) else CHUNK[: self.left]
            taken = stream.write(chunk)
            self.left -= taken
            if taken < len(chunk):
                return
        stream.write_eof()


class PerfRun:
    """The opener's side of one run."""

    __slots__ = (
        "connection", "request", "_download", "_first", "_pump", "_received", "_reported",
        "_service", "_started", "_stream", "_upload",
    )  # fmt: skip

    def __init__(
        self, service: "Perf", connection: Connection, upload: int, download: int, now: float
    ) -> None:
        self.connection = connection
        self.request = service.context.next_id()
        self._service = service
        self._upload = upload
        self._download = download
        self._received = 0
        self._started = self._reported = now
        self._first: float | None = None
        self._stream = connection.open_stream((PROTOCOL,), self._on_open, self.fail, now)
        self._stream.write(download.to_bytes(8, "big"))
        self._pump = _Pump(connection, self._stream, upload)
        self._pump.run(now)

    def fail(self, error: Exception, now: float) -> None:
        """The run broke off."""
        if self._service.runs.pop(self.request, None) is not None:
            self._stream.reset()
            self._service.context.touch(self.connection)
            self._service.context.emit(PerfFailed(self.request, error))

    def _on_open(self, stream: Stream, protocol: str, now: float) -> None:
        stream.on_data = self._on_data
        stream.on_eof = self._on_eof
        stream.on_reset = self._on_reset
        stream.on_writable = self._on_writable

    def _on_writable(self, now: float) -> None:
        self._pump.run(now)
        self._progress(now)

    def _on_data(self, data: bytes, now: float) -> None:
        self._stream.credit(len(data), now)
        if self._first is None:
            self._first = now
        self._received += len(data)
        if self._received > self._download:
            self.fail(RemoteError("the peer sent more bytes than were asked for"), now)
        else:
            self._progress(now)

    def _progress(self, now: float) -> None:
        if now - self._reported >= PROGRESS_EVERY:
            self._reported = now
            sent = self._upload - self._pump.left
            self._service.context.emit(PerfProgressed(self.request, sent, self._received))

    def _on_eof(self, now: float) -> None:
        unsent = self._pump.left + self._stream.unsent
        if self._received < self._download or unsent:
            text = (
                f"the peer closed the stream after it sent {self._received} of {self._download} "
                f"bytes, with {unsent} of our {self._upload} bytes to go"
            )
            self.fail(RemoteError(text), now)
            return
        first = now if self._first is None else self._first
        del self._service.runs[self.request]
        self._service.context.emit(
            PerfFinished(
                self.request, self._upload, self._received, first - self._started, now - first
            )
        )

    def _on_reset(self, code: int, now: float) -> None:
        error = self.connection.error or RemoteError(f"the peer reset the stream (code {code:#x})")
        self.fail(error, now)


class _Responder:
    """The other side: read the number, drain to the end, send as many bytes."""

    __slots__ = ("_connection", "_header", "_stream")

    def __init__(self, connection: Connection, stream: Stream) -> None:
        self._connection = connection
        self._header = b""
        self._stream = stream
        stream.on_data = self._on_data
        stream.on_eof = self._on_eof

    def _on_data(self, data: bytes, now: float) -> None:
        if len(self._header) < 8:
            self._header += data[: 8 - len(self._header)]
        self._stream.credit(len(data), now)

    def _on_eof(self, now: float) -> None:
        if len(self._header) < 8:
            self._stream.reset()
            return
        pump = _Pump(self._connection, self._stream, int.from_bytes(self._header, "big"))
        self._stream.on_writable = pump.run
        pump.run(now)


class Perf(Service):
    """Measures throughput; serves it too when ``serve`` says so, as it lets peers use bandwidth."""

    def __init__(self, *, serve: bool = False) -> None:
        self.protocols = (PROTOCOL,) if serve else ()
        self.runs: dict[int, PerfRun] = {}

    def run(self, connection: Connection, upload: int, download: int, now: float) -> int:
        """Start a run; ``PerfFinished`` or ``PerfFailed`` carries the returned number."""
        if not (0 <= upload < 2**64 and 0 <= download < 2**64):
            raise LocalError("upload and download are numbers of bytes between 0 and 2**64 - 1")
        run = PerfRun(self, connection, upload, download, now)
        self.runs[run.request] = run
        return run.request

    def cancel(self, request: int, now: float) -> None:
        """Break off a run."""
        run = self.runs.get(request)
        if run is not None:
            run.fail(LocalError("the run was cancelled"), now)

    def on_stream(self, connection: Connection, stream: Stream, protocol: str, now: float) -> None:
        _Responder(connection, stream)
