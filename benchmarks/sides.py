"""The programs that are measured, each started as a peer of conformance/PROTOCOL.md.

Ours are workers in this directory, py-libp2p lives in a virtual environment of its own, and the
go, rust and js peers are those of the interop matrix: conformance/building.py builds what is
missing into the cache.
"""

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.append(str(ROOT / "conformance"))

from building import BuildFailed, Built, NotHere, Spec, discover, prepare  # noqa: E402
from peer import Peer, PeerFailed  # noqa: E402

__all__ = ["Built", "Peer", "PeerFailed", "find", "python"]

ASYNCIO, UVLOOP = "anyp2p asyncio", "anyp2p uvloop"
BUILT_IN = "anyp2p built-in"
"""On asyncio, with the host's own echo and perf in place of application code on streams."""
TRIO, GEVENT = "anyp2p trio", "anyp2p gevent"
PYTHON = "py-libp2p"
GO, RUST, JS = "go", "rust", "js"
OURS = (ASYNCIO, UVLOOP, BUILT_IN, TRIO, GEVENT)
_PACKAGES = {UVLOOP: "uvloop", TRIO: "trio", GEVENT: "gevent"}
NAMES = (*OURS, PYTHON, GO, RUST, JS)


def find(wanted: tuple[str, ...], log: Callable[[str], object]) -> dict[str, Built]:
    """What can run here, built. One line to `log` says why something cannot."""
    others = discover()
    found: dict[str, Built] = {}
    for name in wanted:
        if name in OURS:
            package = _PACKAGES.get(name)
            if package is not None and find_spec(package) is None:
                log(f"{name}: skipped: {package} is not installed")
                continue
            found[name] = Built(_own(name), HERE)
            continue
        spec = discover(HERE)["competitor"] if name == PYTHON else others.get(name)
        if spec is None:
            log(f"{name}: skipped: conformance/peers/{name} is not there")
            continue
        try:
            found[name] = prepare(spec, log)
        except (NotHere, BuildFailed) as error:
            log(f"{name}: skipped: {one_line(error)}")
    return found


def one_line(error: Exception) -> str:
    """The first line of a message, and the last one where there are more."""
    first, *more = str(error).splitlines() or [type(error).__name__]
    return f"{first}: {more[-1].strip()}" if more else first


def python(built: Built) -> str:
    """The interpreter of a side that is written in Python."""
    return built.command[0]


def _own(name: str) -> Spec:
    options = {UVLOOP: ["--loop", "uvloop"], BUILT_IN: ["--built-in"]}.get(name, [])
    program = {TRIO: "ours_trio.py", GEVENT: "ours_gevent.py"}.get(name, "ours.py")
    return Spec(
        name=name,
        implementation="anyp2p",
        version="",
        source=HERE,
        needs=[],
        inputs=[],
        build=[],
        run=["{python}", f"{{src}}/{program}", *options],
        # This checkout, whatever else is installed.
        env={"PYTHONPATH": f"{ROOT / 'core'}:{ROOT / 'runtimes'}"},
        keys=["ed25519"],
        cannot={},
    )
