"""The contracts of the interop suites: official programs in their roles, over a real Redis server.

    redis-server  <-- bootstrap, provider, querier: every role by every implementation

A combination has passed when its querier says ``status: pass`` and ends with 0. The server is
the one on PATH, or one that is fetched like a peer. Its port is that of this run alone.

That is the contract of the DHT; transport_contract.py plays that of the transports.
"""

import asyncio
import hashlib
import itertools
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from building import BuildFailed, NotHere, Spec, prepare
from report import FAIL, OK, SKIP, Progress, Result, Suite

HERE = Path(__file__).resolve().parent
CONTRACT = HERE / "contract"
RIVAL = HERE.parent / "benchmarks" / "competitor"
"""Builds the virtual environment with py-libp2p."""
TIMEOUT = 20.0
START_TIMEOUT = 10.0
HEADS = ("bootstrap", "implementation", "provider", "querier")
TITLE = "The contract of the unified DHT test: who plays which role"
CELL = "kad-dht"
TAIL = 12


@dataclass(slots=True)
class Side:
    """A program that can play all roles."""

    name: str
    command: list[str]


def build(progress: Progress) -> None:
    """Fetch what the contract needs; what cannot be had is told when it runs."""
    with suppress(NotHere, BuildFailed):
        _fetched_redis(progress)
    with suppress(NotHere, BuildFailed):
        prepare(Spec.load(RIVAL), progress.line)


async def run_contracts(missing: str, progress: Progress) -> list[Result]:
    """Every combination of roles. ``missing``: the outcome without a server."""
    try:
        program = find_redis(progress)
    except NotHere as reason:
        return [_result("ours", "", "", missing, str(reason))]
    except BuildFailed as error:
        return [_result("ours", "", "", FAIL, str(error).partition("\n")[0])]
    sides = [Side("ours", [sys.executable, str(CONTRACT / "kaddht.py")])]
    results = []
    try:
        sides.append(rival("pylibp2p.py", progress))
    except (NotHere, BuildFailed) as reason:  # it is no part of this directory: never a failure
        results.append(_result("py-libp2p", "", "", SKIP, str(reason).partition("\n")[0]))
    try:
        async with redis_server(program) as redis:
            for combination in itertools.product(sides, repeat=3):
                result = await _play(combination, redis, progress)
                progress.done(result)
                results.append(result)
    finally:
        progress.clear()
    return results


def find_redis(progress: Progress) -> str:
    """The path of a server. Raises NotHere or BuildFailed."""
    return shutil.which("redis-server") or _fetched_redis(progress)


@asynccontextmanager
async def redis_server(program: str) -> AsyncIterator[str]:
    """An empty server of our own, as "host:port"."""
    with tempfile.TemporaryDirectory() as directory:
        port = _free_port()
        server = await asyncio.create_subprocess_exec(
            program,
            *("--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", directory),
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            await _listening(port)
            yield f"127.0.0.1:{port}"
        finally:
            with suppress(ProcessLookupError):
                server.terminate()
            await server.wait()


def rival(program: str, progress: Progress) -> Side:
    """A program of ours on py-libp2p. Raises NotHere or BuildFailed."""
    built = prepare(Spec.load(RIVAL), progress.line)
    return Side("py-libp2p", [built.command[0], str(CONTRACT / program)])


async def _play(sides: tuple[Side, ...], redis: str, progress: Progress) -> Result:
    bootstrap, provider, querier = (side.name for side in sides)
    title = f"{bootstrap}_x_{provider}_x_{querier}"
    progress.now(f"contract: {title}")
    key = hashlib.sha256(f"{title} {port_of(redis)}".encode()).hexdigest()[:8]
    result = _result(bootstrap, provider, querier, OK)
    started = time.monotonic()
    processes = []
    try:
        for role, side in zip(("bootstrap", "provider", "querier"), sides, strict=True):
            environment = {"ROLE": role, "REDIS_ADDR": redis, "TEST_KEY": key}
            processes.append(
                await asyncio.create_subprocess_exec(
                    *side.command,
                    env=dict(os.environ) | environment,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                )
            )
        ending = asyncio.create_task(processes[-1].communicate())
        done, _ = await asyncio.wait([ending], timeout=TIMEOUT)
        if not done:
            processes[-1].kill()
        said = b"".join(await ending).decode(errors="replace")
        passed = processes[-1].returncode == 0 and "status: pass" in said.splitlines()
        if not passed or "status: fail" in said:
            result.outcome = FAIL
            lines = said.strip().splitlines()[-TAIL:] or ["the querier said nothing"]
            result.reason = next((line for line in lines if line.startswith("error:")), lines[-1])
            for line in lines:
                progress.line(f"    {title}: {line}")
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                process.kill()
        await asyncio.gather(*(process.wait() for process in processes))
    result.seconds = time.monotonic() - started
    return result


def port_of(address: str) -> str:
    return address.rpartition(":")[2]


def _result(bootstrap: str, provider: str, querier: str, outcome: str, reason: str = "") -> Result:
    return Result(bootstrap, provider, querier, CELL, outcome, reason=reason)


def _fetched_redis(progress: Progress) -> str:
    return prepare(Spec.load(CONTRACT / "redis"), progress.line).command[0]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


async def _listening(port: int) -> None:
    async with asyncio.timeout(START_TIMEOUT):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return


def suite(results: list[Result]) -> Suite:
    return Suite("contract", results, (CELL,), HEADS, TITLE)
