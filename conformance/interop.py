"""Anyp2p against peers in other languages: matrix, channels, one DHT, pubsub, the contract.

    python conformance/interop.py [--runtimes trio] [--peers go,rust] [--cells ping,echo] [-v]
    python conformance/interop.py --only channels      every transport, security and muxer
    python conformance/interop.py --only browser       a page in Chromium
    python conformance/interop.py --only dht           the DHT alone; dht.py is the same
    python conformance/interop.py --only pubsub        pubsub alone; pubsub.py is the same
    python conformance/interop.py --only contract      the roles of the DHT and transport tests
    python conformance/interop.py --new-peer NAME      write the skeleton of another peer

Exit code 0 only if nothing failed. A cell that fails is run once more and both outcomes are shown;
it counts as failed either way. A peer whose tools are missing is skipped, or failed under CI=true.
README.md says more.
"""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import browser
import channels
import contracts
import dht
import pubsub
import transport_contract
from building import BuildFailed, Built, NotHere, Spec, discover, prepare
from matrix import Plan, run_matrix
from report import COLUMNS, FAIL, SKIP, Progress, Result, Suite, report
from skeleton import write_skeleton

RUNTIMES = ("asyncio", "trio", "gevent")
"""Of our peer, by default."""
OWN = "ours"
ONCE = ("ours", "p2pd")
"""Peers that meet the first runtime only: our own, and an old one."""


def run(options: argparse.Namespace) -> int:
    """Build, then run what was chosen."""
    progress = Progress(options.verbose)
    specs = discover()
    started = time.monotonic()
    built, problems = _build_all(specs, {options.subject, *options.peers}, progress)
    page = None
    if options.only in (None, "browser") and options.subject == OWN:
        page = browser.build(missing(), progress.line)
    building = time.monotonic() - started
    if options.build_only:
        contracts.build(progress)
        return int(any(outcome == FAIL for outcome, _ in problems.values()))
    if options.subject not in built:
        return 1
    suites = []
    plan = Plan(
        subject=built[options.subject],
        runtimes=options.runtimes if options.subject == OWN else [""],
        once=list(ONCE),
        peers=options.peers,
        built=built,
        problems=problems,
        columns=options.cells,
        missing=missing(),
    )
    if options.only in (None, "matrix"):
        suites.append(Suite("matrix", asyncio.run(supervised(run_matrix(plan, progress)))))
    if options.only in (None, "channels"):
        wide = replace(plan, columns=options.channels)
        suites.append(
            channels.suite(asyncio.run(supervised(channels.run_channels(wide, progress))))
        )
    if page is not None:
        tried = browser.run_browser(plan, page, progress)
        suites.append(browser.suite(asyncio.run(supervised(tried))))
    if options.only in (None, "dht"):
        network = dht.run_network(built, problems, options.columns, progress)
        suites.append(dht.suite(asyncio.run(supervised(network))))
    if options.only in (None, "pubsub"):
        networks = pubsub.run_networks(built, problems, options.pubsub_columns, progress)
        suites.append(pubsub.suite(asyncio.run(supervised(networks))))
    if options.only in (None, "contract"):
        played = contracts.run_contracts(missing(), progress)
        suites.append(contracts.suite(asyncio.run(supervised(played))))
        peers = {name: one for name, one in built.items() if name in options.peers}
        tried = transport_contract.run_transports(peers, problems, missing(), progress)
        suites.append(transport_contract.suite(asyncio.run(supervised(tried))))
    specs[browser.SPEC.name] = browser.SPEC
    return report(suites, specs, options.json, building, time.monotonic() - started)


def _build_all(
    specs: dict[str, Spec], names: set[str], progress: Progress
) -> tuple[dict[str, Built], dict[str, tuple[str, str]]]:
    """What could be built, and (outcome, reason) of what could not."""
    built: dict[str, Built] = {}
    problems: dict[str, tuple[str, str]] = {}
    for name in sorted(names):
        try:
            built[name] = prepare(specs[name], progress.line)
        except NotHere as reason:
            progress.line(f"{missing()} {reason}")
            problems[name] = missing(), str(reason)
        except BuildFailed as reason:
            progress.line(str(reason))
            problems[name] = FAIL, str(reason).partition("\n")[0]
    return built, problems


def missing() -> str:
    """The outcome of what this machine lacks something for."""
    return FAIL if os.environ.get("CI") == "true" else SKIP


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    specs = discover()
    found = list(specs)

    def names(of: list[str] | tuple[str, ...]) -> Callable[[str], list[str]]:
        def parse(text: str) -> list[str]:
            chosen = list(dict.fromkeys(name for name in text.split(",") if name))
            unknown = [name for name in chosen if name not in of]
            if unknown or not chosen:
                raise argparse.ArgumentTypeError(f"{text!r} is not of {', '.join(of)}")
            return chosen

        return parse

    parser.add_argument(
        "--peers", type=names(found), default=found, help=f"of {', '.join(found)}; default all"
    )
    parser.add_argument(
        "--cells", type=names(COLUMNS), default=list(COLUMNS), help=f"of {', '.join(COLUMNS)}"
    )
    parser.add_argument(
        "--runtimes",
        type=names(specs[OWN].runtimes),
        default=list(RUNTIMES),
        help=f"of our peer, of {', '.join(specs[OWN].runtimes)}; default {','.join(RUNTIMES)}",
    )
    parser.add_argument(
        "--subject", choices=found, default=OWN, help=f"whose rows these are (default {OWN})"
    )
    parser.add_argument(
        "--channels",
        type=names(channels.COLUMNS),
        default=list(channels.COLUMNS),
        help=f"of {', '.join(channels.COLUMNS)}; default all",
    )
    parser.add_argument(
        "--columns",
        type=names(dht.COLUMNS),
        default=list(dht.COLUMNS),
        help=f"of the DHT, of {', '.join(dht.COLUMNS)}",
    )
    parser.add_argument(
        "--pubsub-columns",
        type=names(pubsub.COLUMNS),
        default=list(pubsub.COLUMNS),
        help=f"of pubsub, of {', '.join(pubsub.COLUMNS)}",
    )
    parser.add_argument(
        "--only",
        choices=["matrix", "channels", "browser", "dht", "pubsub", "contract"],
        help="one of them; default all",
    )
    parser.add_argument("--json", action="store_true", help="results as JSON on stdout")
    parser.add_argument("-v", "--verbose", action="store_true", help="a line for each cell")
    parser.add_argument("--build-only", action="store_true", help="fill the cache and stop")
    parser.add_argument("--new-peer", metavar="NAME", help="write peers/NAME/ to start from")
    options = parser.parse_args()
    chosen = {
        "cells": "matrix",
        "runtimes": "matrix",
        "channels": "channels",
        "columns": "dht",
        "pubsub_columns": "pubsub",
    }
    for name, suite in chosen.items():
        if options.only is None and getattr(options, name) != parser.get_default(name):
            options.only = suite
    if options.subject != OWN and options.only != "channels":
        options.only = "matrix"
    return options


async def supervised(run: Coroutine[Any, Any, list[Result]]) -> list[Result]:
    """Run it so that SIGTERM stops the peers as Ctrl-C does."""
    task = asyncio.ensure_future(run)
    terminated = False

    def terminate() -> None:
        nonlocal terminated
        terminated = True
        task.cancel()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
    try:
        return await task
    except asyncio.CancelledError:
        if terminated:
            sys.exit(128 + signal.SIGTERM)
        raise


def main() -> int:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    options = arguments()
    if options.new_peer:
        return write_skeleton(options.new_peer)
    try:
        return run(options)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
