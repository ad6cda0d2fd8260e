"""Our peer on trio."""

import argparse
import json
import os
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio
from channels import host_options
from commands import AGENT, LIMITS, Commands, emit, make_key, ready, serve
from dht_commands import make_dht
from pubsub_commands import make_pubsub

from anyp2p.trio import Host

T = TypeVar("T")


class TrioTools:
    """``commands.Tools`` in trio's words."""

    async def together(self, *functions: Callable[[], Awaitable[T]]) -> list[T]:
        results: dict[int, T] = {}

        async def call(index: int, function: Callable[[], Awaitable[T]]) -> None:
            results[index] = await function()

        try:
            async with trio.open_nursery() as nursery:
                for index, function in enumerate(functions):
                    nursery.start_soon(call, index, function)
        except* Exception as errors:
            raise errors.exceptions[0] from None
        return [results[index] for index in range(len(functions))]

    async def within(self, seconds: float, function: Callable[[], Awaitable[T]]) -> T:
        try:
            with trio.fail_after(seconds):
                return await function()
        except trio.TooSlowError as error:
            raise TimeoutError from error

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


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
        trio.open_nursery() as nursery,
    ):
        serve(host)
        emit(ready(host))
        commands = Commands(host, TrioTools())
        buffer = b""
        async for data in trio.lowlevel.FdStream(os.dup(0)):
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                request = json.loads(line)
                if request["cmd"] == "stop":
                    emit({"id": request["id"], "ok": True})
                    os._exit(0)
                nursery.start_soon(commands.run, request)
        # "At once": what peers and running commands still expect does not matter.
        os._exit(0)


def main(options: argparse.Namespace) -> None:
    trio.run(run, options)
