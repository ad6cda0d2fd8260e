"""A js-libp2p page in Chromium dials us over WebSocket, on every runtime of ours.

    python conformance/browser.py [--runtimes trio] [-v]

    harness: serves the page <-- chromium --headless: browser/page.mjs, bundled
    page: dial, identify, ping, echo 1 MiB  ==>  our peer
    harness: ping and identify the page from our side, before it hangs up

interop.py runs it after the channels. Chromium is none of the tools that a machine must have:
without it this is skipped.
"""

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from building import BuildFailed, Built, Log, NotHere, Spec, prepare
from cells import CellFailed, expect
from material import Material, material
from matrix import Plan, Problem
from peer import Message, Peer, PeerFailed, PeerNotHere
from report import FAIL, OK, SKIP, Progress, Result, Suite

SPEC = Spec.load(Path(__file__).resolve().parent / "browser")
CHANNELS = {
    "ws+noise+yamux": ("ws", "yamux"),
    "ws+noise+mplex": ("ws", "mplex"),
    "wss+noise+yamux": ("wss", "yamux"),
}
COLUMNS = tuple(CHANNELS)
TITLE = "Browser: a page dials us, identifies, pings and echoes, and is pinged"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ECHO_BYTES = 1 << 20
REPORT_TIMEOUT = 30.0
"""Seconds for Chromium to start, and for each report to come."""
LARGEST_REPORT = 1 << 16
PAGE = b'<!doctype html><script type="module" src="/bundle.mjs"></script>'


def build(missing: str, log: Log) -> Built | Problem:
    """The bundled page, or outcome and reason of what there is instead."""
    if not any(map(shutil.which, PROGRAMS)):
        return SKIP, f"not found on PATH: {PROGRAMS[0]}"
    try:
        return prepare(SPEC, log)
    except NotHere as reason:
        return missing, str(reason)
    except BuildFailed as reason:
        log(str(reason))
        return FAIL, str(reason).partition("\n")[0]


async def run_browser(plan: Plan, page: Built | Problem, progress: Progress) -> list[Result]:
    """Every channel on every runtime; ``page`` is what ``build`` returned."""
    results: list[Result] = []

    def add(runtime: str, channel: str, outcome: str, reason: str, seconds: float = 0.0) -> None:
        result = Result(SPEC.name, runtime, "we listen", channel, outcome, seconds, reason)
        results.append(result)
        progress.done(result)

    if not isinstance(page, Built):
        add("", COLUMNS[0], *page)
        return results
    with material() as files:
        for runtime in plan.runtimes:
            progress.now(f"{runtime} browser")
            extra = (
                *("--runtime", runtime, "--muxers", "yamux,mplex", *files.web.options),
                *("--listen", "/ip4/127.0.0.1/tcp/0/ws", "--listen", "/ip4/127.0.0.1/tcp/0/tls/ws"),
            )
            try:
                peer = await Peer.start(plan.subject, extra=extra)
            except PeerFailed as error:
                outcome = plan.missing if isinstance(error, PeerNotHere) else FAIL
                add(runtime, COLUMNS[0], outcome, str(error).partition("\n")[0])
                continue
            try:
                outcomes = await _attempt(peer, page, files)
                if any(reason for reason, _ in outcomes.values()):
                    again = await _attempt(peer, page, files)
                    for channel, (reason, seconds) in outcomes.items():
                        if reason:
                            second = again[channel][0]
                            told = f"again: {second}" if second else "rerun: ok"
                            outcomes[channel] = f"{reason} ({told})", seconds
            finally:
                await peer.stop()
            for channel, (reason, seconds) in outcomes.items():
                add(runtime, channel, FAIL if reason else OK, reason, seconds)
    progress.clear()
    return results


async def _attempt(peer: Peer, page: Built, files: Material) -> dict[str, tuple[str, float]]:
    """One run of Chromium: for each channel why it failed, or nothing, and the seconds."""
    bundle = (page.out / "bundle.mjs").read_bytes()
    jobs = [
        {
            "channel": name,
            "address": peer.address_of(transport),
            "muxer": muxer,
            "size": ECHO_BYTES,
        }
        for name, (transport, muxer) in CHANNELS.items()
    ]
    outcomes: dict[str, tuple[str, float]] = {}
    came = asyncio.Event()
    last = time.monotonic()

    async def on_report(report: Message) -> None:
        nonlocal last
        channel, reason = report["channel"], ""
        try:
            await _judge(peer, report)
        except (CellFailed, PeerFailed) as error:
            reason = str(error)
        outcomes[channel] = reason, time.monotonic() - last
        last = time.monotonic()
        came.set()

    async with _serving(bundle, jobs, on_report) as url, _chromium(url, files) as stderr:
        with suppress(TimeoutError):
            while len(outcomes) < len(jobs):
                async with asyncio.timeout(REPORT_TIMEOUT):
                    await came.wait()
                came.clear()
        said = stderr.read_text(errors="replace").strip().splitlines()
    for name in CHANNELS:
        why = f"no report in {REPORT_TIMEOUT:.0f} s; chromium said: {said[-1:]}"
        outcomes.setdefault(name, (why, REPORT_TIMEOUT))
    return {name: outcomes[name] for name in CHANNELS}


async def _judge(peer: Peer, report: Message) -> None:
    """What the page saw, and what we see of the page while it waits for our answer."""
    expect("error" not in report, f"the page failed: {report.get('error')}")
    _, security, muxer = report["channel"].split("+")
    for name, said in ((security, report["security"]), (muxer, report["muxer"])):
        expect(f"/{name}" in said, f"the page agreed on {said}, not {name}")
    expect(report["agent"] == peer.agent, f"the page sees the agent {report['agent']!r}")
    expect(
        report["equal"] is True and report["received"] == ECHO_BYTES,
        f"the page got {report['received']} bytes back, equal: {report['equal']}",
    )
    page = report["peer"]
    names = (await peer.call("connections")).get("channels", {}).get(page)
    if peer.name == "ours":
        expect(names == [report["channel"]], f"ours has {names} with the page")
    await peer.call("ping", peer=page)
    answer = await peer.call("identify", peer=page)
    agent = str(answer["agent"])
    expect(agent.startswith("conformance-browser"), f"ours sees the agent {agent!r} of the page")


@asynccontextmanager
async def _serving(bundle: bytes, jobs: list[Message], on_report: Any) -> AsyncIterator[str]:
    """A web server for the page and its reports, each request on a connection of its own."""

    async def answer(method: str, path: str, reader: asyncio.StreamReader, size: int) -> bytes:
        if path == "/":
            return _response("text/html", PAGE)
        if path == "/bundle.mjs":
            return _response("text/javascript", bundle)
        if path == "/jobs":
            return _response("application/json", json.dumps(jobs).encode())
        if method == "POST" and path == "/report" and size <= LARGEST_REPORT:
            await on_report(json.loads(await reader.readexactly(size)))
            return _response("text/plain", b"")
        return b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError, ValueError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, path, _ = head[0].split(" ")
            fields = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            size = int(fields.get("content-length", "0"))
            writer.write(await answer(method, path, reader, size))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()


def _response(kind: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + body


@asynccontextmanager
async def _chromium(url: str, files: Material) -> AsyncIterator[Path]:
    """Chromium with that page open; the file holds what it writes to stderr."""
    program = next(filter(None, map(shutil.which, PROGRAMS)))
    with tempfile.TemporaryDirectory(prefix="anyp2p-browser-", ignore_cleanup_errors=True) as home:
        stderr = Path(home) / "stderr"
        with stderr.open("wb") as said:
            process = await asyncio.create_subprocess_exec(
                program,
                "--headless=new",
                "--no-sandbox",  # it shows one page, which is ours; as root it has no sandbox
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-background-networking",
                f"--ignore-certificate-errors-spki-list={files.web.pin}",
                f"--user-data-dir={home}/profile",
                url,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=said,
                env=dict(os.environ) | {"HOME": home},
                start_new_session=True,
            )
        try:
            yield stderr
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def suite(results: list[Result]) -> Suite:
    """The results as ``report`` wants them."""
    return Suite("browser", results, COLUMNS, title=TITLE, stacked=True)


def main() -> int:
    from interop import main as interop

    sys.argv[1:1] = ["--only", "browser"]
    return interop()


if __name__ == "__main__":
    sys.exit(main())
