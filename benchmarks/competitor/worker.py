"""py-libp2p under the benchmarks' commands: one JSON object per line on stdin and stdout.

It runs in a virtual environment of its own, without anyp2p. Every transfer goes through the
library's public API and its own services (perf and ping), as its documentation shows them.

`--hosts 1`: one host, which serves and dials; two such processes make a pair.
`--hosts 2`: two hosts in one process; commands run on the first, the second one is the peer.
`--listen`, `--security` and `--muxers` choose the channel; the last --listen counts.
"""

import argparse
import json
import logging
import os
import sys
import time
from contextlib import AsyncExitStack
from importlib.metadata import version
from pathlib import Path

import libp2p
import trio
from libp2p import generate_new_ed25519_identity, new_host
from libp2p.crypto.x25519 import create_new_key_pair as new_x25519_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.ping import ID as PING, perform_ping_roundtrip
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.stream.exceptions import StreamEOF
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.perf.perf_service import PerfService
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE, Transport as NoiseTransport
from libp2p.security.tls.transport import PROTOCOL_ID as TLS, TLSTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX, Yamux
from libp2p.transport.tcp.tcp import TCP
from libp2p.transport.upgrader import TransportUpgrader
from multiaddr import Multiaddr

sys.path.append(str(Path(__file__).resolve().parent.parent))
from process import memory as held, say, usage

ECHO = TProtocol("/echo/1.0.0")
PERF = TProtocol("/perf/1.0.0")
LOOPBACK = Multiaddr("/ip4/127.0.0.1/tcp/0")
BLOCK = 65536


async def echo(stream):
    try:
        while data := await stream.read(BLOCK):
            await stream.write(data)
    except StreamEOF:
        pass
    await stream.close()


async def read_to_eof(stream):
    received = 0
    try:
        while data := await stream.read(BLOCK):
            received += len(data)
    except StreamEOF:
        pass
    return received


CHANNEL = argparse.Namespace(listen=LOOPBACK, security=None, muxers="yamux")
"""What hosts are made for; without a name in `security` they offer all that the library has."""


def only_security(name, pair):
    if name == "noise":
        key = new_x25519_key_pair().private_key
        return {NOISE: NoiseTransport(pair, noise_privkey=key)}
    return {TLS: TLSTransport(pair)}


async def start_host(stack):
    pair = generate_new_ed25519_identity()
    security = CHANNEL.security and only_security(CHANNEL.security, pair)
    host = new_host(
        pair,
        sec_opt=security,
        muxer_preference=CHANNEL.muxers.upper(),
        listen_addrs=[CHANNEL.listen],
    )
    await stack.enter_async_context(host.run([CHANNEL.listen]))
    host.set_stream_handler(ECHO, echo)
    await PerfService(host).start()
    return host


def address_of(host):
    text = str(host.get_addrs()[0])
    return text if "/p2p/" in text else f"{text}/p2p/{host.get_id()}"


# Commands: (hosts, request) -> the fields of the answer. hosts[0] dials.


async def dial(hosts, request):
    info = info_from_p2p_addr(Multiaddr(request["address"]))
    await hosts[0].connect(info)
    return {"peer": str(info.peer_id)}


async def disconnect(hosts, request):
    await hosts[0].disconnect(ID.from_string(request["peer"]))
    return {}


async def ping(hosts, request):
    stream = await hosts[0].new_stream(ID.from_string(request["peer"]), [PING])
    rtts = []
    for _ in range(request.get("count", 1)):
        start = time.perf_counter()
        await perform_ping_roundtrip(stream)
        rtts.append(time.perf_counter() - start)
    await stream.close()
    return {"rtts": rtts}


async def perf(hosts, request):
    upload, download = request["upload"], request["download"]
    stream = await hosts[0].new_stream(ID.from_string(request["peer"]), [PERF])
    block = bytes(BLOCK)
    start = time.perf_counter()
    # One byte is asked for when none is wanted: its arrival says that all was received.
    await stream.write(max(download, 1).to_bytes(8, "big"))
    left = upload
    while left:
        size = min(left, BLOCK)
        await stream.write(block if size == BLOCK else block[:size])
        left -= size
    await stream.close_write()
    received = len(await stream.read(BLOCK))
    half = time.perf_counter()
    received += await read_to_eof(stream)
    end = time.perf_counter()
    await stream.close()
    return {"upload_seconds": half - start, "download_seconds": end - half, "received": received}


async def streams(hosts, request):
    peer, payload = ID.from_string(request["peer"]), bytes(32)
    start = time.perf_counter()
    for _ in range(request["count"]):
        stream = await hosts[0].new_stream(peer, [ECHO])
        await stream.write(payload)
        await stream.close_write()
        if await read_to_eof(stream) != 32:
            raise RuntimeError("the echo is not complete")
        await stream.close()
    return {"seconds": time.perf_counter() - start}


async def connects(hosts, request):
    """`Host.connect`, the call that its users make."""
    info = info_from_p2p_addr(Multiaddr(request["address"]))
    host, seconds, cpu = hosts[0], 0.0, 0.0
    for _ in range(request["count"]):
        start, start_cpu = time.perf_counter(), time.process_time()
        await host.connect(info)
        seconds += time.perf_counter() - start
        cpu += time.process_time() - start_cpu
        await host.disconnect(info.peer_id)
        while host.get_network().get_connections(info.peer_id):
            await trio.sleep(0.001)
    return {"seconds": seconds, "cpu": cpu}


def new_upgrader():
    pair = generate_new_ed25519_identity()
    noise = NoiseTransport(pair, noise_privkey=new_x25519_key_pair().private_key)
    return ID.from_pubkey(pair.public_key), TransportUpgrader({NOISE: noise}, {YAMUX: Yamux})


async def one_of(limit, function, *args):
    async with limit:
        await function(*args)


class Pipeline:
    """TCP dial, noise and yamux upgrade with nothing around them: no swarm, peerstore, identify."""

    def __init__(self, nursery):
        self.nursery = nursery
        self.peer_id, self.upgrader = new_upgrader()
        self._accepted, self.accepted = trio.open_memory_channel(1)

    async def listen(self):
        self.listener = TCP().create_listener(self._on_stream)
        await self.listener.listen(LOOPBACK)
        return self.listener.get_addrs()[0]

    async def _on_stream(self, stream):
        raw = RawConnection(stream, False)
        secured = await self.upgrader.upgrade_security(raw, False)
        muxed = await self.upgrader.upgrade_connection(secured, secured.get_remote_peer())
        closed = trio.Event()
        await self._accepted.send((raw, muxed, closed))
        await closed.wait()  # the listener closes the stream when this returns

    async def connect(self, address, upgrader, run_muxers=False):
        raw = await TCP().dial(address)
        secured = await upgrader.upgrade_security(raw, True, self.peer_id)
        muxed = await upgrader.upgrade_connection(secured, self.peer_id)
        _, other, closed = await self.accepted.receive()
        if run_muxers:
            for end in (muxed, other):
                self.nursery.start_soon(end.start)
                await end.event_started.wait()
        return raw, closed


async def raw_connects(hosts, request):
    """The upgrade pipeline, both ends in this process; the sockets are closed in between."""
    async with trio.open_nursery() as nursery:
        pipeline = Pipeline(nursery)
        address = await pipeline.listen()
        _, upgrader = new_upgrader()
        seconds, cpu, start_cpu = 0.0, 0.0, time.process_time()
        for _ in range(request["count"]):
            start, dial_cpu = time.perf_counter(), time.process_time()
            raw, closed = await pipeline.connect(address, upgrader)
            seconds += time.perf_counter() - start
            cpu += time.process_time() - dial_cpu
            closed.set()
            await raw.close()
        total = time.process_time() - start_cpu
        await pipeline.listener.close()
        nursery.cancel_scope.cancel()
    return {"seconds": seconds, "cpu": cpu, "cpu_with_close": total}


async def memory(hosts, request):
    """What `count` idle connections to one listening host hold, both ends in this process."""
    count = request["count"]
    async with AsyncExitStack() as stack:
        if request.get("raw"):
            nursery = await stack.enter_async_context(trio.open_nursery())
            stack.callback(nursery.cancel_scope.cancel)
            pipeline = Pipeline(nursery)
            address = await pipeline.listen()
            upgraders = [new_upgrader()[1] for _ in range(count + 3)]
            keep = []

            async def connect(index):
                keep.append(await pipeline.connect(address, upgraders[index], run_muxers=True))
        else:
            listener = await start_host(stack)
            info = info_from_p2p_addr(Multiaddr(address_of(listener)))
            dialers = [await start_host(stack) for _ in range(count + 3)]

            async def connect(index):
                await dialers[index].connect(info)

        for index in range(3):  # the first ones also load code and fill caches
            await connect(index)
        await trio.sleep(request.get("settle", 1))
        before = held()
        async with trio.open_nursery() as connecting:
            limit = trio.CapacityLimiter(1 if request.get("raw") else 16)
            for index in range(3, count + 3):
                connecting.start_soon(one_of, limit, connect, index)
        await trio.sleep(request.get("settle", 1))
        after = held()
        if not request.get("raw"):
            alive = len(listener.get_network().get_connections())
            if alive < count + 3:
                raise RuntimeError(f"only {alive} of {count + 3} connections are alive")
        return {
            "bytes": (after.resident - before.resident) / count,
            "heap": (after.heap - before.heap) / count,
        }


async def cpu(hosts, request):
    return usage()


COMMANDS = {
    function.__name__: function
    for function in (
        dial,
        disconnect,
        ping,
        perf,
        streams,
        connects,
        raw_connects,
        memory,
        cpu,
    )
}


async def answer(hosts, request):
    command = COMMANDS.get(request["cmd"])
    if command is None:
        say({"id": request["id"], "ok": False, "error": f"unknown command {request['cmd']}"})
        return
    try:
        result = await command(hosts, request)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        say({"id": request["id"], "ok": False, "error": " ".join(text.split())})
    else:
        say({"id": request["id"], "ok": True, **result})


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--hosts", type=int, choices=(1, 2), default=1)
    parser.add_argument("--listen", type=Multiaddr, action="append", default=[LOOPBACK])
    parser.add_argument("--security", choices=("noise", "tls"))
    parser.add_argument("--muxers", choices=("yamux", "mplex"), default="yamux")
    args, _ = parser.parse_known_args()  # the harness also passes what other peers understand
    CHANNEL.listen, CHANNEL.security, CHANNEL.muxers = args.listen[-1], args.security, args.muxers
    logging.disable(logging.CRITICAL)
    async with AsyncExitStack() as stack:
        hosts = [await start_host(stack) for _ in range(args.hosts)]
        say(
            {
                "event": "ready",
                "peer": str(hosts[-1].get_id()),
                "addresses": [address_of(hosts[-1])],
                "agent": "py-libp2p",
                "implementation": f"py-libp2p v{version('libp2p')}, trio v{version('trio')}",
            }
        )
        nursery = await stack.enter_async_context(trio.open_nursery())
        while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            request = json.loads(line)
            if request["cmd"] == "stop":
                say({"id": request["id"], "ok": True})
                break
            nursery.start_soon(answer, hosts, request)
        # Closing py-libp2p's hosts in order can hang; a benchmark's worker owes nobody a goodbye.
        sys.stdout.flush()
        os._exit(0)


if __name__ == "__main__":
    assert libp2p  # its import configures logging before logging is turned off
    trio.run(main)
