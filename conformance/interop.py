"""The interop matrix: anyp2p against peers in other languages, both ways, cell by cell.

    python conformance/interop.py [--peers go,rust] [--cells ping,echo] [--json] [-v]
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
from collections.abc import Callable

from building import BuildFailed, Built, NotHere, Spec, discover, prepare
from matrix import NotStarted, Plan, run_matrix
from report import COLUMNS, FAIL, SKIP, Progress, Result, report
from skeleton import write_skeleton


def run(options: argparse.Namespace) -> int:
    """Build, then run the matrix."""
    progress = Progress(options.verbose)
    specs = discover()
    started = time.monotonic()
    built, problems = _build_all(specs, {options.subject, *options.peers}, progress)
    building = time.monotonic() - started
    if options.build_only:
        return int(any(outcome == FAIL for outcome, _ in problems.values()))
    if options.subject not in built:
        return 1
    try:
        plan = Plan(
            subject=built[options.subject],
            subject_options=("--runtime", options.runtime) if options.runtime else (),
            peers=options.peers,
            built=built,
            problems=problems,
            columns=options.cells,
        )
        results = asyncio.run(supervised(plan, progress))
    except NotStarted as error:
        progress.line(str(error))
        return 1
    return report(results, specs, options.json, building, time.monotonic() - started)


def _build_all(
    specs: dict[str, Spec], names: set[str], progress: Progress
) -> tuple[dict[str, Built], dict[str, tuple[str, str]]]:
    """What could be built, and (outcome, reason) of what could not."""
    built: dict[str, Built] = {}
    problems: dict[str, tuple[str, str]] = {}
    required = os.environ.get("CI") == "true"
    for name in sorted(names):
        try:
            built[name] = prepare(specs[name], progress.line)
        except NotHere as reason:
            progress.line(f"{'FAIL' if required else 'skip'} {reason}")
            problems[name] = FAIL if required else SKIP, str(reason)
        except BuildFailed as reason:
            progress.line(str(reason))
            problems[name] = FAIL, str(reason).partition("\n")[0]
    return built, problems


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    found = list(discover())

    def names(of: list[str] | tuple[str, ...]) -> Callable[[str], list[str]]:
        def parse(text: str) -> list[str]:
            chosen = [name for name in text.split(",") if name]
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
        "--subject", choices=found, default="ours", help="whose rows these are (default ours)"
    )
    parser.add_argument("--runtime", help="the runtime of our peer, where it has a choice")
    parser.add_argument("--json", action="store_true", help="results as JSON on stdout")
    parser.add_argument("-v", "--verbose", action="store_true", help="a line for each cell")
    parser.add_argument("--build-only", action="store_true", help="fill the cache and stop")
    parser.add_argument("--new-peer", metavar="NAME", help="write peers/NAME/ to start from")
    return parser.parse_args()


async def supervised(plan: Plan, progress: Progress) -> list[Result]:
    """The matrix, run so that SIGTERM stops the peers as Ctrl-C does."""
    task = asyncio.ensure_future(run_matrix(plan, progress))
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
