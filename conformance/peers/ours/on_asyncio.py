"""Our peer on asyncio, also under uvloop."""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

from channels import host_options
from commands import AGENT, LIMITS, Commands, emit, make_key, ready, serve
from dht_commands import make_dht
from pubsub_commands import make_pubsub

from anyp2p.asyncio import Host

T = TypeVar("T")

LONGEST_LINE = 4 << 20


class AsyncioTools:
    """``commands.Tools`` in asyncio's words."""

    async def together(self, *functions: Callable[[], Awaitable[T]]) -> list[T]:
        async def call(function: Callable[[], Awaitable[T]]) -> T:
            return await function()

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(call(function)) for function in functions]
        except* Exception as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def within(self, seconds: float, function: Callable[[], Awaitable[T]]) -> T:
        async with asyncio.timeout(seconds):
            return await function()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def run(options: argparse.Namespace) -> None:
    lines = asyncio.StreamReader(limit=LONGEST_LINE)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    key = make_key(options.key)
    async with Host(
        key,
        listen=options.listen,
        agent=AGENT,
        limits=LIMITS,
        dht=make_dht(options),
        pubsub=make_pubsub(options),
        echo=True,
        perf=True,
        **host_options(options),
    ) as host:
        serve(host)
        emit(ready(host))
        commands = Commands(host, AsyncioTools())
        running: set[asyncio.Task[None]] = set()
        while line := await lines.readline():
            request = json.loads(line)
            if request["cmd"] == "stop":
                emit({"id": request["id"], "ok": True})
                break
            task = asyncio.create_task(commands.run(request))
            running.add(task)
            task.add_done_callback(running.discard)
        # "At once": what peers and running commands still expect does not matter.
        os._exit(0)


def main(options: argparse.Namespace) -> None:
    if options.runtime == "uvloop":
        import uvloop

        uvloop.run(run(options))
    else:
        asyncio.run(run(options))
