"""anyp2p dht ...: ask a Kademlia network, starting from peers of it that are named.

anyp2p dht get MADDR ... KEY    connects to the peers, walks the network itself, prints what it
                                found; with --trace also whom it asked
"""

import argparse
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from . import hosts, output
from .arguments import (
    Commands,
    Parser,
    add_command,
    add_dht_options,
    add_host_options,
    add_listen_option,
    count,
    positive_seconds,
    target,
)

if TYPE_CHECKING:
    from anyp2p.dht import Dht
    from anyp2p.host import BaseHost
    from anyp2p_core.kad.events import Trace
    from anyp2p_core.kad.query import Hop
    from anyp2p_core.kad.table import Entry
    from anyp2p_core.multiaddr import Multiaddr

Command = Callable[["BaseHost[Any]", "Dht", argparse.Namespace], Coroutine[Any, Any, None]]

TIMEOUT = 60.0
PEER_TIMEOUT = 10.0


def add_parser(commands: Commands) -> None:
    summary = "find peers, providers and values in a DHT"
    group = commands.add_parser(
        "dht",
        help=summary,
        description="Find peers, providers and values in a Kademlia network. Each command connects "
        "to the peers whose addresses are given and walks the network from there.",
    ).add_subparsers(metavar="COMMAND", required=True)

    parser = _add(group, "find-peer", find_peer, "find out where a peer is, and connect to it")
    parser.add_argument("peer", metavar="PEER", type=peer_id, help="a peer id")

    parser = _add(group, "closest", closest, "list the servers closest to a key")
    parser.add_argument(
        "wanted", metavar="KEY", type=lookup_key, help="a peer id, a CID, or the key of a value"
    )

    parser = _add(
        group,
        "provide",
        provide,
        "tell the network that this peer has some content",
        "Others are told the addresses that this peer listens at. It is gone when the command "
        "ends: --stay lets it stay until Ctrl-C.",
    )
    parser.add_argument("cid", metavar="CID", type=content, help="which content")
    parser.add_argument("--stay", action="store_true", help="go on until Ctrl-C or SIGTERM")
    add_listen_option(parser, "this machine alone if all MADDRs are on it, else all networks")

    parser = _add(group, "find-providers", find_providers, "list peers that have some content")
    parser.add_argument("cid", metavar="CID", type=content, help="which content")
    parser.add_argument(
        "-n",
        "--count",
        metavar="N",
        type=count,
        default=20,
        help="how many are enough (default: 20)",
    )

    parser = _add(group, "put", put, "store a value", "It must be valid for its namespace.")
    parser.add_argument("wanted", metavar="KEY", type=value_key, help=KEY_HELP)
    parser.add_argument(
        "value", metavar="VALUE", type=value, help="text, or @FILE for what is in a file, @- stdin"
    )

    parser = _add(group, "get", get, "find the best value of a key", "Prints the value alone.")
    parser.add_argument("wanted", metavar="KEY", type=value_key, help=KEY_HELP)
    parser.add_argument(
        "--quorum",
        metavar="N",
        type=count,
        default=0,
        help="so many valid values are enough (default: all that can be found)",
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="write the value's bytes there, not to stdout"
    )

    _add(
        group,
        "table",
        table,
        "fill a routing table and show it",
        "Looks up itself and every bucket, as a node does when it starts. Bucket N holds peers "
        "whose keys have the first N bits in common with this peer's.",
        trace=False,
    )


KEY_HELP = "/namespace/name: /pk/ID, /ipns/NAME, or one of --accept"


def _add(
    group: Commands,
    name: str,
    command: Command,
    summary: str,
    details: str = "",
    *,
    trace: bool = True,
) -> Parser:
    def run(args: argparse.Namespace) -> int:
        return _run(args, command)

    parser = add_command(group, name, run, summary, details)
    parser.add_argument(
        "addresses",
        metavar="MADDR",
        nargs="+",
        type=target,
        help="where peers of the network are, such as /ip4/192.0.2.1/tcp/4001/p2p/12D3KooW...",
    )
    parser.add_argument(
        "--timeout",
        dest="patience",
        metavar="SECONDS",
        type=positive_seconds,
        default=TIMEOUT,
        help=f"how long the search may take (default: {TIMEOUT:g})",
    )
    if trace:
        parser.add_argument("--trace", action="store_true", help="show whom was asked")
    else:
        parser.set_defaults(trace=False)
    add_dht_options(parser)
    add_host_options(parser)
    return parser


def _run(args: argparse.Namespace, command: Command) -> int:
    from anyp2p.dht import trace_of
    from anyp2p_core.errors import Error

    from .networks import make_network

    async def main(host: "BaseHost[Any]") -> None:
        await _join(host, args)
        await command(host, host.dht, args)

    if command in (put, get):
        _check_namespace(args)
    network = make_network(args, timeout=args.patience, peer_timeout=PEER_TIMEOUT)
    options: dict[str, Any] = {"dht": network}
    if "listen" in args:
        options["listen"] = args.listen or [_default_listen(args.addresses)]
    try:
        hosts.run(args, main, **options)
    except Error as error:
        trace = trace_of(error)
        if args.trace and trace:
            if args.json:
                output.document({"ok": False, "trace": _trace(trace)})
            else:
                _show_trace(trace)
        raise
    return 0


async def _join(host: "BaseHost[Any]", args: argparse.Namespace) -> None:
    """Connect, until a peer is in the table. Fails if none is reached, or none is a server."""
    from anyp2p_core.errors import Error
    from anyp2p_core.kad.events import DhtTableChanged
    from anyp2p_core.multiaddr import Multiaddr

    from .failures import Failure

    dht = host.dht
    event = host.make_event()
    host.watch(DhtTableChanged, lambda _: event.set())
    servers: list[Multiaddr] = []
    wrong: list[Exception] = []
    for address in args.addresses:
        try:
            peer = await host.connect(address)
            info = await host.identify(peer)
        except Error as error:
            wrong.append(error)
            continue
        if args.protocol in info.protocols:
            where, _ = address.split_peer()
            servers.append((where or address).encapsulate(f"/p2p/{peer}"))
        else:
            hint = "run `anyp2p listen --dht` there"
            wrong.append(Failure(f"{peer} is no server of {args.protocol}: {hint}"))
    if not servers:
        raise wrong[0]
    dht.kad.config.bootstrap = tuple(servers)
    timer = host.node.call_at(host.now() + PEER_TIMEOUT, "join", lambda _: event.set())
    host.flush()
    if not len(dht.table):
        await event.wait()
    host.node.cancel(timer)
    if not len(dht.table):
        raise Failure(f"no answer within {PEER_TIMEOUT:g} s from any of the {len(servers)} peers")


# The commands.


async def find_peer(host: "BaseHost[Any]", dht: "Dht", args: argparse.Namespace) -> None:
    found = await dht.find_peer(args.peer)
    addresses = [str(address) for address in found.addresses]
    if args.json:
        _document(
            args, {"peer": str(found.peer), "addresses": addresses, "connected": found.connected},
            found.trace,
        )  # fmt: skip
        return
    for address in addresses:
        output.say(f"{address}/p2p/{found.peer}")
    if not found.connected:
        output.say("not connected: nobody answered there")
    _end(args, found.trace)


async def closest(host: "BaseHost[Any]", dht: "Dht", args: argparse.Namespace) -> None:
    found = await dht.closest_peers(args.wanted)
    if args.json:
        peers = [_contact(one.peer, one.addresses) for one in found.peers]
        _document(args, {"peers": peers, "reason": found.reason.value}, found.trace)
        return
    output.table([(str(one.peer), _first(one.addresses)) for one in found.peers])
    _end(args, found.trace)


async def provide(host: "BaseHost[Any]", dht: "Dht", args: argparse.Namespace) -> None:
    done = await dht.provide(args.cid)
    if args.json:
        told = {"holders": [str(one) for one in done.holders], "failed": done.failed}
        _document(args, {"addresses": [str(one) for one in host.addresses], **told}, done.trace)
    else:
        for address in host.addresses:
            output.say(str(address))
        failed = f", {done.failed} could not be" if done.failed else ""
        output.say(f"{_peers(len(done.holders))} told{failed}")
        _end(args, done.trace)
    if args.stay:
        await host.make_event().wait()  # nobody sets it: an interrupt ends it


async def find_providers(host: "BaseHost[Any]", dht: "Dht", args: argparse.Namespace) -> None:
    from .failures import Failure

    async with dht.find_providers(args.cid, args.count) as search:
        async for one in search:
            if args.json:
                output.document({"event": "provider", **_contact(one.peer, one.addresses)})
            elif one.addresses:
                for address in one.addresses:
                    output.say(f"{address}/p2p/{one.peer}")
            else:
                output.say(f"/p2p/{one.peer}")
    result = search.result
    found = result.found if result is not None else 0
    asked = _peers(len(search.trace))
    if args.json:
        _document(args, {"event": "summary", "found": found}, search.trace)
    else:
        _end(args, search.trace)
    if not found:
        raise Failure(f"nobody was found who has it: {asked} asked")


async def put(host: "BaseHost[Any]", dht: "Dht", args: argparse.Namespace) -> None:
    done = await dht.put(args.wanted, args.value)
    if args.json:
        told = {"holders": [str(one) for one in done.holders], "failed": done.failed}
        _document(args, {"key": args.wanted.hex(), **told}, done.trace)
        return
    failed = f", {done.failed} have not" if done.failed else ""
    output.say(f"{_peers(len(done.holders), 'have')} stored it{failed}")
    _end(args, done.trace)


async def get(host: "BaseHost[Any]", dht: "Dht", args: argparse.Namespace) -> None:
    found = await dht.get(args.wanted, quorum=args.quorum)
    text = _text(found.value)
    if args.output is not None:
        with open(args.output, "wb") as file:
            file.write(found.value)
    if args.json:
        _document(
            args,
            {
                "key": args.wanted.hex(),
                "value": found.value.hex(),
                "text": text,
                "holders": [str(one) for one in found.holders],
                "behind": [str(one) for one in found.behind],
                "rejected": found.rejected,
            },
            found.trace,
        )
        return
    if args.output is None:
        if text is None and not sys.stdout.isatty():
            sys.stdout.buffer.write(found.value)
            sys.stdout.flush()
        else:
            output.say(found.value.hex() if text is None else text)
    _end(args, found.trace)


async def table(host: "BaseHost[Any]", dht: "Dht", args: argparse.Namespace) -> None:
    await dht.bootstrap()
    health, now = dht.health, host.now()
    buckets: dict[int, list[Entry]] = {}
    for entry in dht.table.entries():
        buckets.setdefault(entry.prefix, []).append(entry)
    estimate = dht.kad.size.estimate
    if args.json:
        output.document(
            {
                "peer": str(host.peer_id),
                "size": health.size,
                "estimate": estimate,
                "buckets": [
                    {
                        "bucket": one.prefix,
                        "peers": [
                            {
                                **_contact(entry.peer, entry.addresses),
                                "answered_seconds_ago": round(now - entry.useful_at, 3),
                            }
                            for entry in buckets[one.prefix]
                        ],
                    }
                    for one in health.buckets
                ],
            }
        )
        return
    about = "" if estimate is None else f"; the network has about {estimate} servers"
    output.say(f"{_peers(health.size, '')} in {_buckets(len(health.buckets))}{about}")
    rows = []
    for one in health.buckets:
        for number, entry in enumerate(buckets[one.prefix]):
            label = f"bucket {one.prefix}: {one.size}" if not number else ""
            rows.append((label, str(entry.peer), _first(entry.addresses)))
    if rows:
        output.say()
        output.table(rows)


# What they print.


def _document(args: argparse.Namespace, value: dict[str, Any], trace: "Trace") -> None:
    output.document({**value, "trace": _trace(trace)} if args.trace else value)


def _end(args: argparse.Namespace, trace: "Trace") -> None:
    if args.trace:
        output.say()
        _show_trace(trace)


def _show_trace(trace: "Trace") -> None:
    began = min((hop.heard_at for hop in trace), default=0.0)
    rows = [("asked", "peer", "bits", "hop", "told by", "after", "took", "")]
    numbers = {hop.peer: str(number) for number, hop in enumerate(trace, 1)}
    for hop in trace:
        told_by = "-" if hop.told_by is None else numbers.get(hop.told_by, "-")
        rows.append(
            (
                numbers[hop.peer],
                str(hop.peer),
                str(_shared(hop)),
                str(hop.depth),
                told_by,
                _ms(hop.asked_at, began),
                _ms(hop.ended_at, hop.asked_at),
                hop.state.name.lower(),
            )
        )
    output.table(rows)


def _trace(trace: "Trace") -> list[dict[str, Any]]:
    began = min((hop.heard_at for hop in trace), default=0.0)
    return [
        {
            "peer": str(hop.peer),
            "shared_bits": _shared(hop),
            "hop": hop.depth,
            "told_by": None if hop.told_by is None else str(hop.told_by),
            "path": hop.path,
            "asked_after_seconds": _seconds(hop.asked_at, began),
            "took_seconds": _seconds(hop.ended_at, hop.asked_at),
            "state": hop.state.name.lower(),
        }
        for hop in trace
    ]


def _shared(hop: "Hop") -> int:
    """Leading bits that a peer's key has in common with what was looked for."""
    return 256 - hop.distance.bit_length()


def _seconds(end: float | None, start: float | None) -> float | None:
    return None if end is None or start is None else round(end - start, 6)


def _ms(end: float | None, start: float | None) -> str:
    seconds = _seconds(end, start)
    return "-" if seconds is None else f"{seconds * 1e3:.1f} ms"


def _contact(peer: object, addresses: "tuple[Multiaddr, ...]") -> dict[str, Any]:
    return {"peer": str(peer), "addresses": [str(address) for address in addresses]}


def _first(addresses: "tuple[Multiaddr, ...]") -> str:
    more = f" and {len(addresses) - 1} more" if len(addresses) > 1 else ""
    return f"{addresses[0]}{more}" if addresses else "-"


def _peers(number: int, verb: str | None = None) -> str:
    """
    >>> _peers(1), _peers(2), _peers(1, "have"), _peers(0, "")
    ('1 peer was', '2 peers were', '1 peer has', '0 peers')
    """
    one = number == 1
    words = {None: ("was", "were"), "have": ("has", "have"), "": ("", "")}[verb]
    return f"{number} peer{'' if one else 's'} {words[0] if one else words[1]}".rstrip()


def _buckets(number: int) -> str:
    return f"{number} bucket{'' if number == 1 else 's'}"


def _check_namespace(args: argparse.Namespace) -> None:
    from .failures import UsageError

    name = args.wanted.split(b"/")[1].decode(errors="replace")
    if name not in ("pk", "ipns", *(args.accept or ())):
        raise UsageError(
            f"nobody knows what is valid in the namespace {name!r}: --accept {name} takes any value"
        )


def _text(value: bytes) -> str | None:
    """A value as text, None if it is none."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() or not text else None


# What they read.


def peer_id(text: str) -> Any:
    """A peer id, also at the end of an address."""
    from anyp2p_core.peer_id import PeerId

    return _read(PeerId.parse, text.rpartition("/p2p/")[2])


def content(text: str) -> bytes:
    """The multihash of a CID."""
    from anyp2p.dht_keys import multihash_of

    found: bytes = _read(multihash_of, text)
    return found


def lookup_key(text: str) -> bytes:
    """Whatever can be looked for."""
    from anyp2p.dht_keys import target_of

    found: bytes = _read(target_of, text)
    return found


def value_key(text: str) -> bytes:
    """The key of a value."""
    from anyp2p.dht_keys import record_key

    found: bytes = _read(record_key, text)
    return found


def value(text: str) -> bytes:
    """The bytes of a value."""
    if not text.startswith("@"):
        return text.encode()
    try:
        if text == "@-":
            return sys.stdin.buffer.read(MAX_READ)
        with open(text[1:], "rb") as file:
            return file.read(MAX_READ)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text[1:]}: {error.strerror}") from None


MAX_READ = 1 << 20
"""Bytes of a value that are read: far more than any peer takes, so that it is refused."""


def _read(function: Callable[[str], Any], text: str) -> Any:
    from anyp2p_core.errors import Error

    try:
        return function(text)
    except Error as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _default_listen(addresses: "list[Multiaddr]") -> str:
    from anyp2p_core.scope import LOOPBACK, scope

    from .listen import DEFAULT

    local = all(scope(address) == LOOPBACK for address in addresses)
    return DEFAULT if local else "/ip4/0.0.0.0/tcp/0"
