"""anyp2p demo: nodes on different event loops talk to each other in this process."""

import argparse
import time
from itertools import pairwise
from typing import TYPE_CHECKING

from . import hosts, output, runtimes
from .arguments import Commands, add_command

if TYPE_CHECKING:
    from .channels import Channel
    from .pairs import Line, Member, Pair

DEFAULT = ("asyncio", "trio", "gevent")
ECHO = 1 << 20
PINGS = 32
MESSAGES = 9
PERF_MIB = 16
ALL_PERF_MIB = 64
"""Shared by all pairs, so that more runtimes do not take longer."""


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "demo",
        run,
        "let nodes on different event loops talk to each other",
        "Each event loop gets a thread with a node. Every node connects to every other one and to "
        "a second one on its own loop, identifies it, pings it, gets 1 MiB echoed, compares it, "
        "runs perf, and gets a value that the other one put into a DHT. Then a message hops by "
        "pubsub over all loops. Fails unless all of it worked.",
    )
    parser.add_argument(
        "--runtimes",
        metavar="A,B,...",
        type=_names,
        help=f"the event loops to take, of {', '.join(runtimes.RUNTIMES)} "
        f"(default: those of {', '.join(DEFAULT)} that are installed)",
    )


def run(args: argparse.Namespace) -> int:
    output.log(args.command, debug=args.debug)
    hosts.interrupt_on_sigterm()
    wanted: tuple[str, ...] = args.runtimes or DEFAULT
    names = [name for name in wanted if runtimes.installed(name)]
    missing = [name for name in wanted if name not in names]
    if not args.json:
        for name in missing:
            output.say(f"{name}: not installed: {runtimes.install(name)}")
    started = time.monotonic()
    members, pairs, line = _meet(names, quiet=args.json)
    ways = _try_channels(names)
    seconds = time.monotonic() - started
    # What was not asked for by name may be missing.
    ok = line.ok and all(pair.ok for pair in pairs) and not (args.runtimes and missing)
    ok = ok and all(way.ok or way.install for way in ways)
    if args.json:
        from dataclasses import asdict

        output.document(
            {
                "ok": ok,
                "seconds": round(seconds, 3),
                "nodes": [{"runtime": m.name, "address": str(m.address)} for m in members],
                "missing": [{"runtime": n, "install": runtimes.install(n)} for n in missing],
                "pairs": [asdict(pair) for pair in pairs],
                "pubsub": asdict(line),
                "channels": [asdict(way) for way in ways],
            }
        )
    else:
        _show(names, pairs, line, ways, seconds)
    return 0 if ok else 1


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name for name in text.split(",") if name))
    unknown = [name for name in names if name not in runtimes.RUNTIMES]
    if unknown or not names:
        known = ", ".join(runtimes.RUNTIMES)
        raise argparse.ArgumentTypeError(f"{text!r}: give some of {known}, with commas between")
    return names


def _meet(names: list[str], *, quiet: bool) -> "tuple[list[Member], list[Pair], Line]":
    """Start the nodes, let each dial each, stop them."""
    from .failures import Failure
    from .pairs import PATIENCE, Line, Member

    perf_size = min(PERF_MIB, max(ALL_PERF_MIB // max(len(names), 1) ** 2, 1)) << 20
    members = [Member(name, perf_size) for name in names]
    line = Line(names)
    try:
        for member in members:
            member.thread.start()
        for member in members:
            member.address = member.answer()
        if members and not quiet:
            _introduce(members)
        pairs = [dialer.measure(listener) for dialer in members for listener in members]
        if all(pair.ok for pair in pairs):
            _share(members, pairs)
            _hop(members, line)
    finally:
        # Threads in the C code of an event loop do not survive the end of the interpreter.
        hosts.end_on_next_interrupt()
        for member in members:
            member.stop()
        for member in members:
            member.join()
    for member in members:
        if member.error is not None:
            raise member.error
        if member.thread.is_alive():
            raise Failure(f"the {member.name} node did not close within {PATIENCE:g} s")
    return members, pairs, line


def _try_channels(names: list[str]) -> "list[Channel]":
    """Connect two nodes on the first loop by everything that this installation speaks."""
    from .channels import meet

    return runtimes.run(names[0], meet) if names else []


def _share(members: "list[Member]", pairs: "list[Pair]") -> None:
    """Let each loop put a value into a DHT, and get that of each other one."""
    for member in members:
        member.share(members[0] if member is not members[0] else None)
    for member in members:
        member.put(f"/demo/put on {member.name}")
    by_names = {(pair.dialer, pair.listener): pair for pair in pairs}
    for getter in members:
        for putter in members:
            first = next((one for one in members if one is not putter), putter)
            pair = by_names[getter.name, putter.name]
            getter.get(f"/demo/put on {putter.name}", first, pair)


def _hop(members: "list[Member]", line: "Line") -> None:
    """Let messages hop over all loops, each of which knows only the one before it."""
    before = None
    for member in members:
        member.tune_in(before)
        before = member
    for place, member in enumerate(members):
        member.meet(len(members[max(place - 1, 0) : place + 2]) - 1)
    members[0].publish()
    for member in members[1:]:
        member.listen()
    line.messages = len(members[0].times)
    for one, other in pairwise(members):
        hops = sorted(b - a for a, b in zip(one.times, other.times, strict=True))
        line.hop_seconds.append(hops[len(hops) // 2])
    line.ok = True


def _introduce(members: "list[Member]") -> None:
    what = "1 node" if len(members) == 1 else f"{len(members)} nodes"
    output.say(f"{what} in this process, a thread and an event loop for each, over TCP:")
    output.say()
    output.table([(f"  {member.name}", str(member.address)) for member in members])
    output.say()


def _show(
    names: list[str],
    pairs: "list[Pair]",
    line: "Line",
    ways: "list[Channel]",
    seconds: float,
) -> None:
    if pairs:
        output.say(f"ping, median of {PINGS}: rows dial, columns listen")
        output.say()
        output.table([("", *names), *(_pings(name, pairs) for name in names)], right=len(names))
        output.say()
        output.table([HEADER, *map(_row, pairs)], right=5)
        output.say()
    if line.hop_seconds:
        hops = zip(names[1:], line.hop_seconds, strict=True)
        over = "".join(f" -> {name} {seconds * 1e3:.1f} ms" for name, seconds in hops)
        output.say(f"pubsub, a message hop by hop, median of {line.messages}: {names[0]}{over}")
        output.say()
    if ways:
        output.say("channels, two nodes on one loop each:")
        output.say()
        output.table([("  channel", "connect", "ping", "address"), *map(_channel_row, ways)])
        output.say()
    for pair in pairs:
        if not pair.ok:
            output.say(f"{pair.dialer} to {pair.listener}: {pair.error}")
    done = sum(pair.ok for pair in pairs)
    output.say(
        f"{done} of {len(pairs)} pairs connected, identified, pinged, echoed {ECHO >> 20} MiB "
        f"intact, ran perf and got each other's values from a DHT, in {seconds:.1f} s"
    )


def _channel_row(way: "Channel") -> tuple[str, ...]:
    if way.install:
        return (f"  {way.name}", "-", "-", f"not installed: {way.install}")
    if not way.ok:
        return (f"  {way.name}", "failed", "failed", way.error)
    connect, ping = f"{way.connect_seconds * 1e3:.1f} ms", f"{way.ping_seconds * 1e6:.0f} us"
    return (f"  {way.name}", connect, ping, way.address)


def _pings(dialer: str, pairs: "list[Pair]") -> list[str]:
    """One row of the matrix."""
    row = [f"  {dialer}"]
    for pair in pairs:
        if pair.dialer == dialer:
            row.append(f"{pair.ping_seconds * 1e6:.0f} us" if pair.ping_seconds else "failed")
    return row


HEADER = ["dialer", "listener", "security", "muxer", "early"]
HEADER += ["connect", f"echo {ECHO >> 20} MiB", "perf up", "perf down", "dht get"]


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
        f"{pair.echo_bytes_per_second / 1e6:.0f} MB/s",
        f"{pair.upload_bytes_per_second / 1e6:.0f} MB/s",
        f"{pair.download_bytes_per_second / 1e6:.0f} MB/s",
        f"{pair.dht_get_seconds * 1e3:.0f} ms",
    ]
