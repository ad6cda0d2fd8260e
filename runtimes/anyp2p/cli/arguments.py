"""What the commands' arguments have in common, and how their values are read."""

import argparse
import math
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from .output import clean
from .runtimes import RUNTIMES

if TYPE_CHECKING:
    from anyp2p_core.multiaddr import Multiaddr

Run = Callable[[argparse.Namespace], int]

UNITS = {
    "": 1, "B": 1,
    "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
MAX_SIZE = 2**64 - 1


class Parser(argparse.ArgumentParser):
    """Tells what is wrong in one line, and takes no abbreviated options."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        print(clean(f"{self.prog}: {message}; see `{self.prog} --help`"), file=sys.stderr)
        raise SystemExit(2)


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"  # it has no public name


def add_command(commands: Commands, name: str, run: Run, summary: str, details: str = "") -> Parser:
    """A command with the options that all of them have. ``summary`` is a phrase."""
    sentence = f"{summary[0].upper()}{summary[1:]}. {details}"
    parser = commands.add_parser(name, help=summary, description=sentence.strip())
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    parser.add_argument("--debug", action="store_true", help="show logs and tracebacks")
    parser.set_defaults(run=run, command=parser.prog.partition(" ")[2])
    return parser


def add_host_options(parser: Parser) -> None:
    """The options of a command that runs a host."""
    parser.add_argument(
        "--runtime",
        choices=RUNTIMES,
        default="asyncio",
        help="the event loop to use (default: asyncio)",
    )
    parser.add_argument(
        "--key",
        metavar="FILE",
        help="identity to use, made by `anyp2p key generate FILE` (default: a fresh one)",
    )
    parser.add_argument(
        "--security",
        metavar="A,B,...",
        type=names,
        help="what to offer and accept, of noise, tls, plaintext (none at all), secio (museum); "
        "default: noise, and tls where it is installed",
    )
    parser.add_argument(
        "--muxers",
        metavar="A,B,...",
        type=names,
        help="the same for stream multiplexers, of yamux and mplex (default: yamux)",
    )
    parser.add_argument(
        "--psk",
        metavar="FILE",
        help="the key of a private network (swarm.key): only peers that have it can connect",
    )
    parser.add_argument(
        "--web-trust",
        metavar="FILE",
        help="authorities (PEM) to believe when dialing /wss, instead of the system's",
    )


def add_target(parser: Parser) -> None:
    """The peer that a command talks to, and how long it waits for it."""
    parser.add_argument(
        "address",
        metavar="MADDR",
        type=target,
        help="the peer's address, such as /ip4/192.0.2.1/tcp/4001/p2p/12D3KooW...; "
        "without /p2p/ID whoever answers is accepted",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=positive_seconds,
        default=10.0,
        help="how long to wait for the connection, and for each answer (default: 10)",
    )


def add_dht_options(parser: Parser) -> None:
    """Which Kademlia network it is."""
    parser.add_argument(
        "--protocol",
        metavar="NAME",
        default="/ipfs/kad/1.0.0",
        type=protocol,
        help="the network's protocol (default: /ipfs/kad/1.0.0)",
    )
    parser.add_argument(
        "--accept",
        metavar="NAMESPACE",
        action="append",
        type=namespace,
        help="take any value in this namespace, for tests and networks of your own; "
        "all peers have to do so; repeat it for more (pk and ipns are always there)",
    )


def add_listen_option(parser: Parser, default: str) -> None:
    """Where the host listens."""
    parser.add_argument(
        "--listen",
        metavar="MADDR",
        type=multiaddr,
        action="append",
        help="where to listen, any of /tcp, /ws, /wss, /quic-v1, /unix and /memory; "
        f"repeat it for more (default: {default})",
    )
    parser.add_argument(
        "--web-certificate",
        nargs=2,
        metavar=("CHAIN", "KEY"),
        help="files (PEM) that /wss addresses are served with",
    )


def names(text: str) -> list[str]:
    """Names with commas between.

    >>> names("noise,tls")
    ['noise', 'tls']
    """
    found = [name for name in text.split(",") if name]
    if not found:
        raise argparse.ArgumentTypeError("give at least one name")
    return found


def multiaddr(text: str) -> "Multiaddr":
    """A multiaddr in its text form."""
    from anyp2p_core.errors import DecodeError
    from anyp2p_core.multiaddr import Multiaddr

    try:
        return Multiaddr(text)
    except DecodeError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def target(text: str) -> "Multiaddr":
    """An address that can be dialed."""
    address = multiaddr(text)
    if address.names == ("p2p",):
        raise argparse.ArgumentTypeError(
            f"{text} says who the peer is and not where: put /ip4/.../tcp/... in front of it"
        )
    return address


def server(text: str) -> "Multiaddr":
    """An address with the id of the peer that is there."""
    address = target(text)
    if address.names[-1] != "p2p":
        raise argparse.ArgumentTypeError(f"{text} does not say who is there: add /p2p/ and its id")
    return address


def protocol(text: str) -> str:
    """The name of a protocol."""
    if not text.startswith("/") or len(text) < 2 or not text.isprintable():
        raise argparse.ArgumentTypeError(f"{text!r} is no protocol: it starts with a slash")
    return text


def namespace(text: str) -> str:
    """The first part of the keys of some values."""
    if not text.isascii() or not text.isprintable() or "/" in text or not text:
        raise argparse.ArgumentTypeError(f"{text!r} is no namespace: a name without slashes")
    if text in ("pk", "ipns"):
        raise argparse.ArgumentTypeError(f"what is valid in {text} is decided by its definition")
    return text


def size(text: str) -> int:
    """A number of bytes, such as 512, 64MiB or 1.5GB.

    >>> size("64MiB"), size("1.5 kB"), size("7")
    (67108864, 1500, 7)
    """
    found = re.fullmatch(r"([0-9]{1,20}(?:\.[0-9]{1,9})?) ?([A-Za-z]*)", text, re.ASCII)
    factor = _FACTORS.get(found[2].lower()) if found is not None else None
    if found is None or factor is None:
        units = ", ".join(unit for unit in UNITS if unit)
        raise argparse.ArgumentTypeError(f"{text!r} is no size: give a number and one of {units}")
    whole, _, fraction = found[1].partition(".")
    number = int(whole) * factor
    if fraction:
        number += int(fraction) * factor // 10 ** len(fraction)
    if number > MAX_SIZE:
        raise argparse.ArgumentTypeError(f"{text!r} is more than the protocol can express")
    return number


_FACTORS = {unit.lower(): factor for unit, factor in UNITS.items()}


def count(text: str) -> int:
    """A number of at least 1."""
    if not (text.isascii() and text.isdigit() and len(text) <= 18 and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def seconds(text: str) -> float:
    """A time of 0 or more seconds."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not (number >= 0 and math.isfinite(number)):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return number


def positive_seconds(text: str) -> float:
    """A time of more than 0 seconds."""
    number = seconds(text)
    if not number:
        raise argparse.ArgumentTypeError("it has to be more than 0 seconds")
    return number
