"""anyp2p ping: round trips to a peer, in the manner of ping(8)."""

import argparse
import math
from typing import TYPE_CHECKING, Any

from . import hosts, output
from .arguments import Commands, add_command, add_host_options, add_target, count, seconds

if TYPE_CHECKING:
    from anyp2p.host import BaseHost


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "ping",
        run,
        "measure round trips to a peer",
        "Goes on until Ctrl-C unless -c is given, and connects again when the connection is lost. "
        "Succeeds if any ping was answered.",
    )
    add_target(parser)
    parser.add_argument("-c", "--count", metavar="N", type=count, help="stop after N pings")
    parser.add_argument(
        "-i",
        "--interval",
        metavar="SECONDS",
        type=seconds,
        default=1.0,
        help="time between two pings (default: 1); 0 sends the next when one is answered",
    )
    add_host_options(parser)


def run(args: argparse.Namespace) -> int:
    tally = Tally(json=args.json)

    async def ping(host: "BaseHost[Any]") -> None:
        await _ping(host, args, tally)

    try:
        hosts.run(args, ping)
    except KeyboardInterrupt:
        if not tally.transmitted:
            raise
    tally.summarize()
    return 0 if tally.received else 1


async def _ping(host: "BaseHost[Any]", args: argparse.Namespace, tally: "Tally") -> None:
    from anyp2p_core.errors import Error

    peer = await host.connect(args.address)
    tally.connected(str(peer), args.address)
    due = host.now()
    while True:
        try:
            await host.connect(peer)  # at once, unless the connection was lost
            tally.answered(await host.ping(peer))
        except Error as error:
            tally.lost(error)
        if tally.transmitted == args.count:
            return
        due = max(due + args.interval, host.now())
        await hosts.sleep(host, due - host.now())


class Tally:
    """What became of the pings. A ping that is under way is not counted."""

    def __init__(self, *, json: bool) -> None:
        self.transmitted = 0
        self.received = 0
        self._json = json
        self._peer = ""
        self._min, self._max = math.inf, 0.0
        # Welford's method: sums of squares would cancel each other out.
        self._mean = self._squares = 0.0

    def connected(self, peer: str, address: object) -> None:
        """The peer was reached."""
        self._peer = peer
        if not self._json:
            output.say(f"PING {peer} at {address}")

    def answered(self, rtt: float) -> None:
        """A ping came back after ``rtt`` seconds."""
        self.transmitted += 1
        self.received += 1
        ms = rtt * 1000
        self._min, self._max = min(self._min, ms), max(self._max, ms)
        delta = ms - self._mean
        self._mean += delta / self.received
        self._squares += delta * (ms - self._mean)
        if self._json:
            output.document({"event": "pong", "seq": self.transmitted, "rtt_ms": round(ms, 3)})
        else:
            output.say(f"seq={self.transmitted} time={ms:.3f} ms")

    def lost(self, error: Exception) -> None:
        """A ping was not answered."""
        from .failures import describe

        self.transmitted += 1
        text = describe(error)
        if self._json:
            output.document({"event": "lost", "seq": self.transmitted, "error": text})
        else:
            output.say(f"seq={self.transmitted} lost: {text}")

    def summarize(self) -> None:
        """Print the statistics."""
        loss = 100 * (self.transmitted - self.received) / max(self.transmitted, 1)
        times = self._times()
        if self._json:
            output.document(
                {
                    "event": "summary",
                    "peer": self._peer,
                    "transmitted": self.transmitted,
                    "received": self.received,
                    "loss_percent": round(loss, 3),
                    **{
                        f"{name}_ms": round(times[name], 3) if name in times else None
                        for name in ("min", "avg", "max", "mdev")
                    },
                }
            )
            return
        output.say()
        output.say(f"--- {self._peer} ping statistics ---")
        output.say(f"{self.transmitted} transmitted, {self.received} received, {loss:.3g}% loss")
        if times:
            numbers = "/".join(f"{number:.3f}" for number in times.values())
            output.say(f"rtt {'/'.join(times)} = {numbers} ms")

    def _times(self) -> dict[str, float]:
        """Milliseconds; ``mdev`` is the standard deviation, as in ping(8)."""
        if not self.received:
            return {}
        mdev = math.sqrt(self._squares / self.received)
        return {"min": self._min, "avg": self._mean, "max": self._max, "mdev": mdev}
