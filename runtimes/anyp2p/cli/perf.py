"""anyp2p perf: how fast bytes move to a peer and back."""

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

from . import hosts, output
from .arguments import Commands, add_command, add_host_options, add_target, size

if TYPE_CHECKING:
    from anyp2p.host import BaseHost, PerfResult

DEFAULT = "64MiB"


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "perf",
        run,
        "measure throughput to a peer",
        "The upload comes first, the download after it, both over one stream. The peer has to "
        "serve /perf/1.0.0, as `anyp2p listen` does. Sizes take B, kB, MB, GB, KiB, MiB, GiB.",
    )
    add_target(parser)
    for name in ("upload", "download"):
        parser.add_argument(
            f"--{name}",
            metavar="SIZE",
            type=size,
            default=DEFAULT,
            help=f"how much to {name} (default: {DEFAULT})",
        )
    add_host_options(parser)


def run(args: argparse.Namespace) -> int:
    from anyp2p_core.errors import Error
    from anyp2p_core.perf import PROTOCOL

    from .failures import Failure

    progress = (
        None if args.json or not sys.stderr.isatty() else Progress(args.upload, args.download)
    )

    async def measure(host: "BaseHost[Any]") -> "tuple[str, PerfResult]":
        peer = await host.connect(args.address)
        if progress is not None:
            progress.start()
        try:
            return str(peer), await host.perf(peer, args.upload, args.download, progress)
        except Error:
            info = host.node.identified(peer)
            if info is None or PROTOCOL in info.protocols:
                raise
            raise Failure(f"{peer} does not serve {PROTOCOL}: run `anyp2p listen` there") from None

    try:
        peer, result = hosts.run(args, measure)
    finally:
        if progress is not None:
            progress.clear()
    upload = rate(result.uploaded, result.upload_seconds)
    download = rate(result.downloaded, result.download_seconds)
    if args.json:
        output.document(
            {
                "peer": peer,
                "upload_bytes": result.uploaded,
                "upload_seconds": round(result.upload_seconds, 6),
                "upload_bytes_per_second": upload,
                "download_bytes": result.downloaded,
                "download_seconds": round(result.download_seconds, 6),
                "download_bytes_per_second": download,
            }
        )
        return 0
    rows = [("upload", result.uploaded, result.upload_seconds, upload)]
    rows += [("download", result.downloaded, result.download_seconds, download)]
    output.table(
        [
            (label, readable(moved), f"in {seconds:.3f} s", show_rate(speed))
            for label, moved, seconds, speed in rows
        ]
    )
    return 0


def rate(moved: int, seconds: float) -> int | None:
    """Bytes per second; None when nothing was moved."""
    return round(moved / seconds) if moved and seconds > 0 else None


def show_rate(speed: int | None) -> str:
    return "-" if speed is None else f"{speed / 1e6:.1f} MB/s"


def readable(number: int) -> str:
    """A number of bytes for people.

    >>> readable(67108864), readable(1500), readable(12)
    ('64.0 MiB', '1.5 KiB', '12 B')
    """
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if number >= factor:
            return f"{number / factor:.1f} {unit}"
    return f"{number} B"


class Progress:
    """One line on the terminal, written over again and again."""

    def __init__(self, upload: int, download: int) -> None:
        self._upload = upload
        self._download = download
        self._last = (0.0, 0)

    def start(self) -> None:
        """The bytes begin to move."""
        self._last = (time.monotonic(), 0)

    def __call__(self, uploaded: int, downloaded: int) -> None:
        now, moved = time.monotonic(), uploaded + downloaded
        before, had = self._last
        self._last = now, moved
        speed = show_rate(rate(moved - had, now - before))
        if uploaded < self._upload:
            text = f"upload {readable(uploaded)} of {readable(self._upload)}, {speed}"
        else:
            text = f"download {readable(downloaded)} of {readable(self._download)}, {speed}"
        self._write(text)

    def clear(self) -> None:
        self._write("")

    def _write(self, text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
