"""A file of what happens in pubsub, which go peers' trace tools read.

with TraceFile("trace.pb") as trace:
    async with Host(pubsub=GossipSub(GossipConfig(), trace=trace)) as host:
        ...
"""

import logging
import os
from contextlib import suppress
from types import TracebackType
from typing import Self

from anyp2p_core.pubsub.trace import TraceEvent, encode

log = logging.getLogger("anyp2p")


class TraceFile:
    """Writes each event that it is called with. A full disk ends the trace, and nothing else."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Replaces the file. OSError if it cannot be written."""
        self.events = 0
        """Events that were written, as far as buffers go."""
        self.error: OSError | None = None
        """Why the trace ended early."""
        self._path = os.fspath(path)
        self._file = open(path, "wb")  # noqa: SIM115

    def __call__(self, event: TraceEvent) -> None:
        if self._file.closed:
            return
        try:
            self._file.write(encode(event))
            self.events += 1
        except OSError as error:
            self._fail(error)

    def close(self) -> None:
        """Write what is buffered. Harmless when repeated."""
        try:
            self._file.close()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        self.error = error
        log.error("the trace %s ends after %d events: %s", self._path, self.events, error)
        with suppress(OSError):  # the same one again
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
