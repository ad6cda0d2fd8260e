"""anyp2p demo: peers on every installed event loop talk to each other in this process.

    this thread                     one thread per runtime, with a listener and a dialer
      address of a listener    ->   the dialer connects, pings, identifies, echoes, runs perf
                               <-   Pair: what was agreed on and measured, or the error
      None                     ->   the hosts close

One pair at a time, so that nobody disturbs a measurement.
"""

import argparse
import time
from dataclasses import asdict, dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

from . import hosts, output, runtimes
from .arguments import Commands, Parser, add_command

if TYPE_CHECKING:
    from anyp2p_core.multiaddr import Multiaddr
    from anyp2p_core.peer_id import PeerId

    from ..host import BaseHost

PINGS = 32
ECHO = 1 << 20
IN_FLIGHT = 128 * 1024
"""Echo bytes under way: less than the smallest window, so that one task can write and read."""
PERF_MIB = 16
ALL_PERF_MIB = 64
"""Shared by all pairs, so that more runtimes do not take longer."""
PATIENCE = 15.0
"""Seconds for one pair."""


@dataclass(slots=True)
class Pair:
    """What one runtime measured with a listener on another; sizes in bytes, times in seconds."""

    dialer: str
    listener: str
    ok: bool = False
    error: str | None = None
    security: str = ""
    muxer: str = ""
    early_muxer: bool = False
    connect_seconds: float = 0.0
    ping_seconds: float = 0.0
    """The median."""
    echo_bytes_per_second: float = 0.0
    upload_bytes_per_second: float = 0.0
    download_bytes_per_second: float = 0.0


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
    from .failures import Failure

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


class Member:
    """One runtime in its own thread. What happens there comes out of ``answer`` here."""

    def __init__(self, name: str, perf_size: int) -> None:
        self.name = name
        self.address: Any = None
        self.error: Exception | None = None
        self.thread = Thread(target=self._run, name=f"anyp2p demo {name}", daemon=True)
        self._perf_size = perf_size
        self._jobs: SimpleQueue[tuple[str, Multiaddr] | None] = SimpleQueue()
        self._answers: SimpleQueue[Any] = SimpleQueue()

    def answer(self) -> Any:
        """The next thing that the thread has to say; raises what ended it."""
        from .failures import Failure

        try:
            answer = self._answers.get(timeout=PATIENCE)
        except Empty:
            raise Failure(f"the {self.name} hosts said nothing for {PATIENCE:g} s") from None
        if self.error is not None:
            raise self.error
        return answer

    def measure(self, listener: "Member") -> Pair:
        """Dial the listener of another runtime, or of this one."""
        self._jobs.put((listener.name, listener.address))
        pair: Pair = self.answer()
        return pair

    def stop(self) -> None:
        """Have the hosts closed; ``thread`` ends then."""
        self._jobs.put(None)

    # In the thread.

    def _run(self) -> None:
        try:
            runtimes.run(self.name, self._main)
        except Exception as error:
            self.error = error
            self._answers.put(None)

    async def _main(self, host_class: runtimes.HostClass) -> None:
        from .failures import Failure

        listening = ["/ip4/127.0.0.1/tcp/0"]
        async with (
            host_class(listen=listening, echo=True, perf=True) as listener,
            host_class() as dialer,
        ):
            self._answers.put(listener.addresses[0])
            while (job := await self._next_job(dialer)) is not None:
                pair = Pair(self.name, job[0])
                await try_pair(dialer, job[1], pair, self._perf_size)
                self._answers.put(pair)
        if listener.internal_errors or dialer.internal_errors:
            raise Failure("a host met an internal error: --debug shows it; please report it")

    async def _next_job(self, host: "BaseHost[Any]") -> "tuple[str, Multiaddr] | None":
        """Wait without blocking the loop. Asking is the one way to do it that every loop knows."""
        while True:
            try:
                return self._jobs.get_nowait()
            except Empty:
                await hosts.sleep(host, 0.01)


async def try_pair(host: "BaseHost[Any]", address: "Multiaddr", pair: Pair, perf_size: int) -> None:
    """Do everything with one peer and write down how it went."""
    from anyp2p_core.errors import Error

    from .failures import Failure, describe

    try:
        start = time.perf_counter()
        peer = await host.connect(address)
        pair.connect_seconds = time.perf_counter() - start
        negotiated = host.node.connections(peer)[0].negotiated
        pair.security, pair.muxer = negotiated.security, negotiated.muxer
        pair.early_muxer = negotiated.early_muxer
        info = await host.identify(peer)
        if info.peer != peer or not info.agent or not info.signed_record:
            raise Failure(f"identify gave {info}")
        rtts = sorted([await timed_ping(host, peer) for _ in range(PINGS)])
        pair.ping_seconds = rtts[PINGS // 2]
        pair.echo_bytes_per_second = ECHO / await echo(host, peer)
        perf = await host.perf(peer, perf_size, perf_size)
        if (perf.uploaded, perf.downloaded) != (perf_size, perf_size):
            raise Failure(f"perf moved {perf.uploaded} and {perf.downloaded} bytes")
        pair.upload_bytes_per_second = perf_size / max(perf.upload_seconds, 1e-6)
        pair.download_bytes_per_second = perf_size / max(perf.download_seconds, 1e-6)
        await host.disconnect(peer)
    except (Error, Failure) as error:
        pair.error = describe(error)
    else:
        pair.ok = True


async def timed_ping(host: "BaseHost[Any]", peer: "PeerId") -> float:
    """Seconds until the application has the answer: clocks of event loops differ in resolution."""
    start = time.perf_counter()
    await host.ping(peer)
    return time.perf_counter() - start


async def echo(host: "BaseHost[Any]", peer: "PeerId") -> float:
    """Send ``ECHO`` bytes and compare what comes back; returns the seconds that it took."""
    from .failures import Failure

    # 251 is prime: a shift by any power of two would not go unnoticed.
    data = (bytes(range(251)) * (ECHO // 251 + 1))[:ECHO]
    sent = received = 0
    start = time.perf_counter()
    async with await host.open_stream(peer, "/echo/1.0.0") as stream:
        while received < ECHO:
            while sent < ECHO and sent - received < IN_FLIGHT:
                chunk = data[sent : sent + IN_FLIGHT // 2]
                await stream.write(chunk)
                sent += len(chunk)
                if sent == ECHO:
                    await stream.close_write()
            back = await stream.read()
            if not back or back != data[received : received + len(back)]:
                raise Failure(f"the echo differs after {received} bytes")
            received += len(back)
        if await stream.read():
            raise Failure("the echo is longer than what was sent")
    return time.perf_counter() - start


def _show(pairs: list[Pair], seconds: float) -> None:
    header = ("dialer", "listener", "security", "muxer", "early", "connect", "ping", "echo")
    rows = [(*header, "perf up", "perf down")]
    for pair in pairs:
        measured = (
            pair.security or "-",
            pair.muxer or "-",
            "yes" if pair.early_muxer else "no",
            f"{pair.connect_seconds * 1e3:.1f} ms",
            f"{pair.ping_seconds * 1e6:.0f} us",
            f"{pair.echo_bytes_per_second / 1e6:.0f} MB/s",
            f"{pair.upload_bytes_per_second / 1e6:.0f} MB/s",
            f"{pair.download_bytes_per_second / 1e6:.0f} MB/s",
        )
        rows.append((pair.dialer, pair.listener, *(measured if pair.ok else ("failed",) * 8)))
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
