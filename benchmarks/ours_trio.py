"""The same as ours.py on trio: `anyp2p.trio.Host` and its streams."""

import argparse
import json
import os
from contextlib import AsyncExitStack

import exchanges
import trio
from exchanges import COMMANDS, ECHO, LOOPBACK, PERF, Hosts
from process import say

from anyp2p.trio import Host


async def main(count: int) -> None:
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        hosts: Hosts = []
        for _ in range(count):
            host = await stack.enter_async_context(Host(listen=[LOOPBACK], security=["noise"]))
            host.set_handler(ECHO, exchanges.serve_echo)
            host.set_handler(PERF, exchanges.serve_perf)
            hosts.append(host)
        exchanges.ready(hosts, "trio")
        buffer = b""
        async for data in trio.lowlevel.FdStream(os.dup(0)):
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                request = json.loads(line)
                if request["cmd"] == "stop":
                    say({"id": request["id"], "ok": True})
                    return
                nursery.start_soon(exchanges.answer, COMMANDS, hosts, request)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--hosts", type=int, choices=(1, 2), default=1)
    args, _ = parser.parse_known_args()  # the harness also passes what other peers understand
    trio.run(main, args.hosts)
