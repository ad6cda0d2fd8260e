"""Our peer on anyio, with asyncio below."""

import argparse
import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
from channels import host_options
from commands import AGENT, LIMITS, Commands, emit, make_key, ready, serve
from dht_commands import make_dht
from pubsub_commands import make_pubsub

from anyp2p.anyio import Host

T = TypeVar("T")


class AnyioTools:
    """``commands.Tools`` in anyio's words."""

    async def together(self, *functions: Callable[[], Awaitable[T]]) -> list[T]:
        results: dict[int, T] = {}

        async def call(index: int, function: Callable[[], Awaitable[T]]) -> None:
            results[index] = await function()

        try:
            async with anyio.create_task_group() as group:
                for index, function in enumerate(functions):
                    group.start_soon(call, index, function)
        except* Exception as errors:
            raise errors.exceptions[0] from None
        return [results[index] for index in range(len(functions))]

    async def within(self, seconds: float, function: Callable[[], Awaitable[T]]) -> T:
        with anyio.fail_after(seconds):
            return await function()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


async def run(options: argparse.Namespace) -> None:
    key = make_key(options.key)
    async with (
        Host(
            key,
            listen=options.listen,
            agent=AGENT,
            limits=LIMITS,
            dht=make_dht(options),
            pubsub=make_pubsub(options),
            echo=True,
            perf=True,
            **host_options(options),
        ) as host,
        anyio.create_task_group() as group,
    ):
        serve(host)
        emit(ready(host))
        commands = Commands(host, AnyioTools())
        async for line in anyio.wrap_file(sys.stdin.buffer):
            request = json.loads(line)
            if request["cmd"] == "stop":
                emit({"id": request["id"], "ok": True})
                break
            group.start_soon(commands.run, request)
        # "At once": what peers and running commands still expect does not matter.
        os._exit(0)


def main(options: argparse.Namespace) -> None:
    anyio.run(run, options)
