"""anyp2p sim: whole networks in this process, on a virtual clock."""

import argparse
import time

from . import output
from .arguments import Commands, add_command, count

NODES = 1000
ROUNDS = 10
SECURITY = ("null", "noise")


def add_parser(commands: Commands) -> None:
    summary = "simulate networks"
    group = commands.add_parser(
        "sim",
        help=summary,
        description="Simulate networks: many peers in one process, on a virtual clock. "
        "The same seed gives the same run.",
    )
    parser = add_command(
        group.add_subparsers(metavar="COMMAND", required=True),
        "ping",
        run,
        "let the peers of a ring ping their neighbours",
        "Prints how many pings were answered, in how much virtual and real time, and a digest of "
        "everything that happened, which depends on the options alone.",
    )
    parser.add_argument(
        "--nodes",
        metavar="N",
        type=nodes,
        default=NODES,
        help=f"how many peers, 2 or more (default: {NODES})",
    )
    parser.add_argument(
        "--rounds",
        metavar="N",
        type=count,
        default=ROUNDS,
        help=f"how many pings each of them sends (default: {ROUNDS})",
    )
    parser.add_argument(
        "--seed", metavar="N", type=seed, default=0, help="what decides the run (default: 0)"
    )
    parser.add_argument(
        "--security",
        choices=SECURITY,
        default=SECURITY[0],
        help="null: no cryptography, the default; noise: the real thing",
    )


def run(args: argparse.Namespace) -> int:
    from anyp2p.sim import World, ring

    output.log(args.command, debug=args.debug)
    started = time.perf_counter()
    with World(seed=args.seed, security=args.security) as world:
        peers = ring.make(world, args.nodes)
        ready = time.perf_counter()
        since = world.now
        peers.run(args.rounds)
        ended = time.perf_counter()
        virtual, digest = world.now - since, world.digest()
    wall = ended - ready
    rate = peers.pings / max(wall, 1e-9)
    if args.json:
        output.document(
            {
                "nodes": args.nodes,
                "rounds": args.rounds,
                "seed": args.seed,
                "security": args.security,
                "pings": peers.pings,
                "virtual_seconds": round(virtual, 6),
                "setup_seconds": round(ready - started, 3),
                "wall_seconds": round(wall, 3),
                "pings_per_second": round(rate),
                "digest": digest,
            }
        )
    else:
        output.say(
            f"{args.nodes} peers in a ring, {args.security} security, seed {args.seed}; "
            f"connected in {ready - started:.1f} s"
        )
        output.say(
            f"{peers.pings} pings in {virtual:.3f} virtual and {wall:.2f} real seconds: "
            f"{rate:.0f} pings/s"
        )
        output.say(f"digest {digest}")
    return 0


def nodes(text: str) -> int:
    """A number of at least 2."""
    number = count(text)
    if number < 2:
        raise argparse.ArgumentTypeError("a ring has 2 or more peers")
    return number


def seed(text: str) -> int:
    """Any whole number."""
    try:
        if len(text) <= 30:
            return int(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number")
