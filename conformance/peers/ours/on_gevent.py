"""Our peer on gevent; ``gevent_words`` says how commands that are coroutines run there."""

import argparse
import json
import os
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

import gevent
import gevent.os
from channels import host_options
from commands import AGENT, LIMITS, Commands, emit, make_key, ready, serve
from dht_commands import make_dht
from gevent_words import AwaitableHost, finish
from pubsub_commands import make_pubsub

from anyp2p.gevent import Host
from anyp2p.host import BaseHost

T = TypeVar("T")


class GeventTools:
    """``commands.Tools`` in gevent's words."""

    async def together(self, *functions: Callable[[], Awaitable[T]]) -> list[T]:
        greenlets: list[Any] = [
            gevent.spawn(lambda f=function: finish(f())) for function in functions
        ]
        try:
            gevent.joinall(greenlets, raise_error=True)
        finally:
            gevent.killall(greenlets)
        return [greenlet.value for greenlet in greenlets]

    async def within(self, seconds: float, function: Callable[[], Awaitable[T]]) -> T:
        with gevent.Timeout(seconds, TimeoutError(f"not done in {seconds:.0f} s")):
            return await function()

    async def sleep(self, seconds: float) -> None:
        gevent.sleep(seconds)


def main(options: argparse.Namespace) -> None:
    key = make_key(options.key)
    with Host(
        key,
        listen=options.listen,
        agent=AGENT,
        limits=LIMITS,
        dht=make_dht(options),
        pubsub=make_pubsub(options),
        echo=True,
        perf=True,
        **host_options(options),
    ) as blocking:
        host = cast(BaseHost[Any], AwaitableHost(blocking))
        serve(host)
        emit(ready(host))
        commands = Commands(host, GeventTools())
        buffer = b""
        while data := gevent.os.tp_read(0, 1 << 16):
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                request = json.loads(line)
                if request["cmd"] == "stop":
                    emit({"id": request["id"], "ok": True})
                    os._exit(0)
                gevent.spawn(lambda r=request: finish(commands.run(r)))
        # "At once": what peers and running commands still expect does not matter.
        os._exit(0)
