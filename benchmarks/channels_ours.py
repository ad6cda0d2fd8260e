"""anyp2p on asyncio, on one channel: its own perf and ping, as a user calls them on a Host.

    channels_ours.py --listen MADDR [--security NAME] [--muxers NAME]

The last --listen counts: a host that also listened elsewhere would be dialed there as well.
"""

import argparse
import asyncio
import json
import sys
import time

import exchanges
import ours
from exchanges import Answer, Command, Hosts
from process import say

from anyp2p.asyncio import Host
from anyp2p_core.multiaddr import Multiaddr
from anyp2p_core.peer_id import PeerId


async def perf(hosts: Hosts, request: Answer) -> Answer:
    peer = PeerId.parse(request["peer"])
    result = await hosts[0].perf(peer, request["upload"], request["download"])
    return {
        "upload_seconds": result.upload_seconds,
        "download_seconds": result.download_seconds,
        "received": result.downloaded,
    }


async def first_pings(hosts: Hosts, request: Answer) -> Answer:
    """From the dial to the first pong, then disconnect."""
    host, address = hosts[0], Multiaddr(request["address"])
    seconds = 0.0
    for _ in range(request["count"]):
        start = time.perf_counter()
        peer = await host.connect(address)
        await host.ping(peer)
        seconds += time.perf_counter() - start
        await host.disconnect(peer)
        while peer in host.peers:
            await asyncio.sleep(0)
    return {"seconds": seconds}


async def connections(hosts: Hosts, request: Answer) -> Answer:
    """What each connection really consists of."""
    found: dict[str, list[str]] = {}
    for one in hosts[0].node.connections():
        agreed, remote = one.negotiated, str(one.remote)
        name = "quic-v1"
        if "/quic-v1" not in remote:
            layers = (agreed.security.split("/")[1], agreed.muxer.split("/")[1])
            name = "+".join(("ws" if "/ws" in remote else "tcp", *layers))
        found.setdefault(str(one.peer), []).append(name)
    return {"channels": found}


COMMANDS: dict[str, Command] = {
    **exchanges.COMMANDS,
    "connects": ours.connects,
    **{function.__name__: function for function in (perf, first_pings, connections)},
}


async def main(args: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    stdin = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    async with Host(
        listen=args.listen[-1:], security=[args.security], muxers=[args.muxers], perf=True
    ) as host:
        hosts: Hosts = [host]
        exchanges.ready(hosts, "asyncio")
        async with asyncio.TaskGroup() as tasks:
            while line := await stdin.readline():
                request = json.loads(line)
                if request["cmd"] == "stop":
                    say({"id": request["id"], "ok": True})
                    break
                tasks.create_task(exchanges.answer(COMMANDS, hosts, request))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", action="append", required=True)
    parser.add_argument("--security", default="noise")
    parser.add_argument("--muxers", default="yamux")
    args, _ = parser.parse_known_args()  # the harness also passes what other peers understand
    asyncio.run(main(args))
