"""anyp2p listen: a peer that others can try themselves on."""

import argparse
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from . import hosts, output
from .arguments import (
    Commands,
    add_command,
    add_dht_options,
    add_host_options,
    add_listen_option,
    server,
)

if TYPE_CHECKING:
    from anyp2p.host import BaseHost
    from anyp2p_core.kad.service import Kad

DEFAULT = "/ip4/127.0.0.1/tcp/0"


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "listen",
        run,
        "be a peer that serves ping, identify, echo and perf",
        "Prints one line for each address it can be dialed at, then serves until Ctrl-C or "
        "SIGTERM. Echo and perf let whoever connects use bandwidth, so it is open to this machine "
        "alone unless --listen says otherwise: --listen /ip4/0.0.0.0/tcp/4001 for all networks.",
    )
    add_listen_option(parser, DEFAULT)
    parser.add_argument(
        "--dht", action="store_true", help="be a server of a Kademlia network as well"
    )
    parser.add_argument(
        "--bootstrap",
        metavar="MADDR",
        type=server,
        action="append",
        help="with --dht: a peer of the network; repeat it for more (default: none, so that "
        "others have to connect)",
    )
    parser.add_argument(
        "--store",
        metavar="FILE",
        help="with --dht: keep what others store here in a file (default: in memory)",
    )
    add_dht_options(parser)
    add_host_options(parser)


def run(args: argparse.Namespace) -> int:
    from .failures import UsageError

    if not args.dht and (args.bootstrap or args.store or args.accept):
        raise UsageError("--bootstrap, --store and --accept are for --dht")

    async def serve(host: "BaseHost[Any]") -> None:
        if args.json:
            addresses = [str(address) for address in host.addresses]
            output.document({"peer": str(host.peer_id), "addresses": addresses})
        else:
            for address in host.addresses:
                output.say(str(address))
        await host.make_event().wait()  # nobody sets it: an interrupt ends it

    with ExitStack() as stack:
        options: dict[str, Any] = {"listen": args.listen or [DEFAULT], "echo": True, "perf": True}
        if args.dht:
            options["dht"] = _network(args, stack)
        # That is how it is meant to end, so that it is a success.
        with suppress(KeyboardInterrupt):
            hosts.run(args, serve, **options)
    return 0


def _network(args: argparse.Namespace, stack: ExitStack) -> "Kad":
    from .networks import make_network

    store = None
    if args.store is not None:
        from anyp2p.providers.sqlite_store import SqliteStore

        store = stack.enter_context(SqliteStore(args.store))
    return make_network(args, server=True, bootstrap=tuple(args.bootstrap or ()), store=store)
