"""Measures the channels other than TCP, noise and yamux, beside py-libp2p, go and js peers.

    python benchmarks/channels.py [--quick] [--only NAME ...] [--runs N] [--json FILE]
                                  [--write-results]

NAME: tls (TCP, TLS, yamux), ws (WebSocket, noise, yamux), mplex (TCP, noise, mplex), quic.

Two processes for each side, one that dials and one that listens; in every run all sides are started
anew and take one sample each in turn, in another order in each run. Printed are medians with the
least and the largest sample, and the column x: how many times anyp2p's cost on asyncio that is.
CPU is user and system time of both processes. What a side cannot do is told at the end. A missed
target is told, not an exit code.

upload      host.perf on one stream, one way; other sides by their own perf service
connect     dial and hang up, one after the other; wall without the hanging up, CPU with it
first ping  the same, with the first pong of /ipfs/ping/1.0.0 before the hanging up

What these are compared with besides other implementations:

anyp2p on TCP  in the rows of ws: our own upload on TCP, noise and yamux
aioquic        in the rows of quic: the library under our QUIC, driven by one loop around select on
               plain UDP sockets in two processes, with datagrams of the same size and wide windows.
               As it ships: the client shows no certificate and nobody checks the server's
primitives     the bound of a first ping: what the library operations of one such connection cost.
               TLS: TCP connect and accept with asyncio protocols, the handshake of pyOpenSSL in
               memory BIOs with libp2p's certificates at both ends, both of them verified with
               their identity's signature, and 32 bytes there and back. QUIC: the handshake of
               aioquic over UDP sockets, with the same certificates and verifications at both
               ends, and 32 bytes there and back on a stream. No multistream-select, muxer,
               identify or limits
"""

import argparse
import asyncio
import json
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import report
import rows
import sides
from building import Spec
from report import Figure, Required, Results, Row
from rows import SLOW, Pair, Sample
from sides import ASYNCIO, GO, HERE, JS, PYTHON, ROOT, Built, Peer, PeerFailed

RESULTS = HERE / "RESULTS-channels.md"
TCP = "anyp2p on TCP"
AIOQUIC = "aioquic"
PRIMITIVES = "primitives"
ORDER = (ASYNCIO, TCP, PYTHON, GO, JS, AIOQUIC, PRIMITIVES)


@dataclass(slots=True)
class Channel:
    """What a side is started with, and what else is measured beside the implementations."""

    transport: str
    listen: str
    security: str
    muxer: str
    others: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        if self.transport == "quic-v1":
            return self.transport
        return f"{self.transport}+{self.security}+{self.muxer}"


_TCP, _WS = "/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/0/ws"
_QUIC = "/ip4/127.0.0.1/udp/0/quic-v1"
PLAIN = Channel("tcp", _TCP, "noise", "yamux")
CHANNELS = {
    "tls": Channel("tcp", _TCP, "tls", "yamux", (PRIMITIVES,)),
    "ws": Channel("ws", _WS, "noise", "yamux", (TCP,)),
    "mplex": Channel("tcp", _TCP, "noise", "mplex"),
    "quic": Channel("quic-v1", _QUIC, "noise", "yamux", (AIOQUIC, PRIMITIVES)),
}


@dataclass(slots=True)
class Sizes:
    """What one sample is made of; ``slow`` is for py-libp2p, and ``quic`` for QUIC in Python."""

    upload: int
    slow: int
    quic: int
    connects: int
    slow_connects: int


FULL = Sizes(128 << 20, 32 << 20, 32 << 20, 150, 6)
QUICK = Sizes(64 << 20, 16 << 20, 16 << 20, 50, 3)


def _upload(title: str) -> Row:
    return Row(
        f"Upload, {title}",
        [
            Figure("MB/s", "wall", 1000, inverse=True, digits=1),
            Figure("CPU s/GB", "cpu", 1),
        ],
    )


def _connect(title: str) -> Row:
    return Row(
        title,
        [
            Figure("ms", "wall", 1e3),
            Figure("CPU ms", "cpu_with_close", 1e3),
        ],
    )


ROWS = {
    "upload tls": _upload("TCP, TLS, yamux"),
    "upload ws": _upload("WebSocket, noise, yamux"),
    "upload mplex": _upload("TCP, noise, mplex"),
    "upload quic": _upload("QUIC"),
    "connect tls": _connect("Connect, TLS"),
    "connect quic": _connect("Connect, QUIC"),
    "first ping tls": _connect("Connect and first ping, TLS"),
    "first ping quic": _connect("Connect and first ping, QUIC"),
}


def _both(row: str, text: str, other: str, target: float, judged: bool = True) -> list[Required]:
    """CPU is judged, as everywhere; the wall clock of a busy machine is told beside it."""
    cpu = "cpu" if row.startswith("upload") else "cpu_with_close"
    return [
        Required(row, f"{text}, CPU", cpu, other, target, judged=judged),
        Required(row, f"{text}, wall", "wall", other, target, judged=False),
    ]


REQUIRED = [
    *_both("upload tls", "TLS upload, against py-libp2p", PYTHON, 5),
    *_both("upload tls", "TLS upload, against js", JS, 2),
    *_both("upload ws", "WebSocket upload, of our TCP", TCP, 0.6),
    *_both("upload ws", "WebSocket upload, against js", JS, 4),
    *_both("upload mplex", "mplex upload, against py-libp2p", PYTHON, 10),
    *_both("upload quic", "QUIC upload, of aioquic's ceiling", AIOQUIC, 0.8),
    *_both("connect quic", "QUIC connect, of aioquic's ceiling", AIOQUIC, 0.8),
    *_both("connect quic", "the same, certificates at both ends", PRIMITIVES, 0.8, judged=False),
    *_both("first ping tls", "TLS first ping, bound over measured", PRIMITIVES, 0.7),
    *_both("first ping quic", "QUIC first ping, bound over measured", PRIMITIVES, 0.7),
    *_both("first ping quic", "the same, aioquic as it ships", AIOQUIC, 0.7, judged=False),
]


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def own(name: str, program: str, *options: str) -> Built:
    """A program of this directory, run with this checkout."""
    run = ["{python}", f"{{src}}/{program}", *options]
    path = {"PYTHONPATH": f"{ROOT / 'core'}:{ROOT / 'runtimes'}"}
    return Built(Spec(name, "", "", HERE, [], [], [], run, path, ["ed25519"], {}), HERE)


def programs(channel: str) -> dict[str, Built]:
    """What is measured on a channel apart from the other implementations."""
    found = {ASYNCIO: own(ASYNCIO, "channels_ours.py")}
    for name in CHANNELS[channel].others:
        if name == TCP:
            found[name] = own(name, "channels_ours.py")
        elif name == AIOQUIC:
            found[name] = own(name, "channels_aioquic.py")
        elif channel == "quic":
            found[name] = own(name, "channels_aioquic.py", "--judged")
        else:
            found[name] = own(name, "channels_openssl.py")
    return found


class Bench:
    """The samples of all runs so far."""

    def __init__(self, others: dict[str, Built], sizes: Sizes) -> None:
        self.results: Results = {}
        self.implementations: dict[str, str] = {}
        self.failures: dict[tuple[str, str, str], str] = {}
        """By channel, side and row: the last one."""
        self._others = others
        self._sizes = sizes
        self._run = 0

    async def run(self, names: list[str]) -> None:
        """One sample of everything on these channels."""
        self._run += 1
        for name in names:
            log(f"  {name}")
            await self._channel(name)

    async def _channel(self, name: str) -> None:
        channel = CHANNELS[name]
        built = programs(name) | self._others
        order = list(built)
        turn = self._run % len(order)
        order = order[turn:] + order[:turn]
        pairs: dict[str, Pair] = {}
        try:
            for side in order:
                if channel.transport in built[side].spec.cannot:
                    self._failed(name, side, "start", built[side].spec.cannot[channel.transport])
                    continue
                try:
                    pairs[side] = await start(built[side], PLAIN if side == TCP else channel)
                    told = self.implementations.setdefault(side, "")
                    text = pairs[side].server.implementation
                    if text not in told:
                        self.implementations[side] = f"{told}, {text}" if told else text
                except PeerFailed as error:
                    self._failed(name, side, "start", error)
            for side in order:
                await self._take(name, side, "upload", pairs)
            if name in ("tls", "quic"):
                await asyncio.sleep(0.5)
                for side in order:
                    await self._take(name, side, "connect", pairs)
                for side in order:
                    await self._take(name, side, "first ping", pairs)
        finally:
            for pair in pairs.values():
                await pair.stop()

    async def _take(self, name: str, side: str, row: str, pairs: dict[str, Pair]) -> None:
        """One sample of one side. What fails is left out from there on."""
        if side not in pairs or (side == PRIMITIVES and (row, name) in _NOT_BOUNDS):
            return
        if row == "first ping" and side not in (ASYNCIO, AIOQUIC, PRIMITIVES):
            return
        pair = pairs[side]
        fragile = side == PYTHON and name == "quic"
        try:
            if row == "upload":
                for _ in range(5 if fragile else 0):
                    with suppress(PeerFailed):
                        sample = await self._upload(name, side, pair)
                        break
                    await pair.stop()
                    pair = pairs[side] = await start(self._others[side], CHANNELS[name])
                else:
                    sample = await self._upload(name, side, pair)
                if fragile:
                    await pair.stop()
                    pair = pairs[side] = await start(self._others[side], CHANNELS[name])
            else:
                count = self._sizes.slow_connects if side == PYTHON else self._sizes.connects
                command = "connects" if row == "connect" else "first_pings"
                try:
                    await rows.connects(pair, 2, command)
                    sample = await rows.connects(pair, count, command)
                except PeerFailed:  # go forgets an address now and then while it identifies
                    sample = await rows.connects(pair, count, command)
        except PeerFailed as error:
            self._failed(name, side, row, error)
            del pairs[side]
            await pair.stop()
        else:
            self.results.setdefault(f"{row} {name}", {}).setdefault(side, []).append(sample)

    async def _upload(self, name: str, side: str, pair: Pair) -> Sample:
        sizes = self._sizes
        size = sizes.slow if side == PYTHON else sizes.upload
        if name == "quic":
            size = sizes.quic
            if side == PYTHON:  # which does not survive the end of a transfer
                await pair.connect()
                return await rows.upload(pair, 4 << 20)
        await pair.connect()
        if side in (GO, JS, ASYNCIO, TCP):
            await expect_channel(pair, PLAIN if side == TCP else CHANNELS[name])
        await rows.upload(pair, 4 << 20)  # for caches, compilers and windows
        sample = await rows.upload(pair, size)
        await pair.disconnect()
        return sample

    def _failed(self, name: str, side: str, row: str, error: Exception | str) -> None:
        reason = error if isinstance(error, str) else sides.one_line(error)
        self.failures[name, side, row] = reason
        log(f"{side}, {name} {row}: {reason}")


_NOT_BOUNDS = (("upload", "tls"), ("upload", "quic"), ("connect", "tls"))


async def start(built: Built, channel: Channel) -> Pair:
    """Two processes that listen on a channel and dial on it."""
    options = ("--listen", channel.listen) if channel.listen != _TCP else ()
    extra = (*options, "--security", channel.security, "--muxers", channel.muxer)
    server = await Peer.start(built, extra=extra)
    try:
        server.addresses = [server.address_of(channel.transport)]
        return Pair(await Peer.start(built, extra=extra), server)
    except BaseException:
        await server.stop()
        raise


async def expect_channel(pair: Pair, channel: Channel) -> None:
    """Raise PeerFailed if the connection is not what is to be measured."""
    answer = await pair.client.call("connections", timeout=SLOW)
    found = answer["channels"].get(pair.peer, [])
    if found != [channel.name]:
        raise PeerFailed(f"{found} instead of {channel.name}")


def ordered(found: dict[str, Any]) -> dict[str, Any]:
    return {name: found[name] for name in ORDER if name in found}


async def main(args: argparse.Namespace) -> None:
    load = os.getloadavg()[0]
    if load > 0.5:
        log(f"this machine is busy (load {load:.1f}): the ratios are noisier than they need be")
    bench = Bench(sides.find((PYTHON, GO, JS), log), QUICK if args.quick else FULL)
    for number in range(args.runs):
        log(f"run {number + 1} of {args.runs}")
        await bench.run(args.only)
    results = {row: ordered(bench.results[row]) for row in ROWS if row in bench.results}
    text = report.tables(results, ROWS, REQUIRED)
    notes = report.machine(ordered(bench.implementations), load)
    notes += f"\n- load {os.getloadavg()[0]:.1f} at the end, {args.runs} runs"
    for (name, side, row), reason in bench.failures.items():
        notes += f"\n- not measured, or not in every run: {side}, {name} {row}: {reason}"
    print(f"{text}\n\n{notes}")
    if args.json:
        content = {
            "samples": results,
            "implementations": bench.implementations,
            "missed": report.missed(results, REQUIRED),
            "failures": [" ".join((*key, reason)) for key, reason in bench.failures.items()],
        }
        Path(args.json).write_text(json.dumps(content, indent=1) + "\n")
    if args.write_results:
        command = "python benchmarks/channels.py" + (" --quick" if args.quick else "")
        RESULTS.write_text(
            f"# Results of the channels\n\nWritten by `{command} --runs {args.runs}"
            " --write-results`; medians, and x: times anyp2p's cost on asyncio.\n"
            "The head of channels.py says what is measured, and what the bounds are.\n\n"
            f"{notes}\n\n{text}\n"
        )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="3 runs, smaller sizes")
    parser.add_argument(
        "--only", nargs="+", choices=CHANNELS, default=list(CHANNELS), metavar="NAME"
    )
    parser.add_argument("--runs", type=int, help="default: 5, with --quick 3")
    parser.add_argument("--json", metavar="FILE", help="write every sample")
    parser.add_argument("--write-results", action="store_true", help="write RESULTS-channels.md")
    args = parser.parse_args()
    args.runs = args.runs or (3 if args.quick else 5)
    return args


if __name__ == "__main__":
    if not os.path.exists("/proc/self/statm"):
        sys.exit("benchmarks/channels.py reads /proc: it runs on Linux only")
    asyncio.run(main(parse()))
