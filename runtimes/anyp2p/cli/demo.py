"""anyp2p demo: peers on every installed event loop talk to each other in this process."""

import argparse
import time
from typing import TYPE_CHECKING

from . import hosts, output, runtimes
from .arguments import Commands, add_command

if TYPE_CHECKING:
    from .pairs import Pair

ECHO = 1 << 20
PERF_MIB = 16
ALL_PERF_MIB = 64
"""Shared by all pairs, so that more runtimes do not take longer."""


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "demo",
        run,
        "let peers in this process talk to each other and show what they measured",
        "Each installed event loop gets a thread with a peer that listens and one that dials. "
        f"Every pair connects, identifies, pings, echoes {ECHO >> 20} MiB, compares it, and runs "
        "perf. Fails unless all of it worked.",
    )
    parser.add_argument(
        "--runtime",
        action="append",
        choices=runtimes.RUNTIMES,
        help="take this event loop alone; repeat it for more (default: all that are installed)",
    )


def run(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from .failures import Failure
    from .pairs import PATIENCE, Member

    output.log(args.command, debug=args.debug)
    hosts.interrupt_on_sigterm()
    started = time.monotonic()
    names = list(dict.fromkeys(args.runtime or runtimes.available()))
    perf_size = min(PERF_MIB, max(ALL_PERF_MIB // len(names) ** 2, 1)) << 20
    members = [Member(name, perf_size) for name in names]
    try:
        for member in members:
            member.thread.start()
        for member in members:
            member.address = member.answer()
        pairs = [dialer.measure(listener) for dialer in members for listener in members]
    finally:
        for member in members:
            member.stop()
    for member in members:
        member.thread.join(PATIENCE)
        if member.error is not None:
            raise member.error
        if member.thread.is_alive():
            raise Failure(f"the {member.name} hosts did not close within {PATIENCE:g} s")
    seconds = time.monotonic() - started
    ok = all(pair.ok for pair in pairs)
    if args.json:
        output.document(
            {"ok": ok, "seconds": round(seconds, 3), "pairs": [asdict(pair) for pair in pairs]}
        )
    else:
        _show(pairs, seconds)
    return 0 if ok else 1


HEADER = ["dialer", "listener", "security", "muxer", "early", "connect", "ping", "echo"]
HEADER += ["perf up", "perf down"]


def _row(pair: "Pair") -> list[str]:
    names = [pair.dialer, pair.listener]
    if not pair.ok:
        return names + ["failed"] * (len(HEADER) - len(names))
    return [
        *names,
        pair.security,
        pair.muxer,
        "yes" if pair.early_muxer else "no",
        f"{pair.connect_seconds * 1e3:.1f} ms",
        f"{pair.ping_seconds * 1e6:.0f} us",
        f"{pair.echo_bytes_per_second / 1e6:.0f} MB/s",
        f"{pair.upload_bytes_per_second / 1e6:.0f} MB/s",
        f"{pair.download_bytes_per_second / 1e6:.0f} MB/s",
    ]


def _show(pairs: "list[Pair]", seconds: float) -> None:
    rows = [HEADER, *map(_row, pairs)]
    output.table(rows)
    output.say()
    for pair in pairs:
        if not pair.ok:
            output.say(f"{pair.dialer} to {pair.listener}: {pair.error}")
    done = sum(pair.ok for pair in pairs)
    output.say(
        f"{done} of {len(pairs)} pairs connected, identified, pinged, echoed {ECHO >> 20} MiB "
        f"intact and ran perf, in {seconds:.1f} s"
    )
