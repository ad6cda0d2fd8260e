"""The same as ours.py on gevent: `anyp2p.gevent.Host`, whose calls block their greenlet."""

import argparse
import json
import os
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack

import exchanges
import gevent
import gevent.os
from exchanges import BLOCK, ECHO, LOOPBACK, PERF, PING, Answer
from process import say, usage

from anyp2p.gevent import Host, Stream
from anyp2p_core.peer_id import PeerId

Hosts = list[Host]


def serve_echo(stream: Stream) -> None:
    while data := stream.recv():
        stream.sendall(data)


def serve_perf(stream: Stream) -> None:
    left = int.from_bytes(stream.recv_exactly(8), "big")
    while stream.recv():
        pass
    while left:
        size = min(left, BLOCK)
        stream.sendall(bytes(size))
        left -= size


def dial(hosts: Hosts, request: Answer) -> Answer:
    return {"peer": str(hosts[0].connect(request["address"]))}


def disconnect(hosts: Hosts, request: Answer) -> Answer:
    hosts[0].disconnect(PeerId.parse(request["peer"]))
    return {}


def ping(hosts: Hosts, request: Answer) -> Answer:
    stream = hosts[0].open_stream(PeerId.parse(request["peer"]), PING)
    rtts = []
    for _ in range(request.get("count", 1)):
        payload = os.urandom(32)
        start = time.perf_counter()
        stream.sendall(payload)
        if stream.recv_exactly(32) != payload:
            raise RuntimeError("the pong differs from the ping")
        rtts.append(time.perf_counter() - start)
    stream.close()
    return {"rtts": rtts}


def perf(hosts: Hosts, request: Answer) -> Answer:
    upload, block = request["upload"], bytes(BLOCK)
    stream = hosts[0].open_stream(PeerId.parse(request["peer"]), PERF)
    start = time.perf_counter()
    stream.sendall(request["download"].to_bytes(8, "big"))
    while upload:
        size = min(upload, BLOCK)
        stream.sendall(block if size == BLOCK else block[:size])
        upload -= size
    stream.shutdown(socket.SHUT_WR)
    received = len(stream.recv())
    half = time.perf_counter()
    for data in stream:
        received += len(data)
    end = time.perf_counter()
    stream.close()
    return {"upload_seconds": half - start, "download_seconds": end - half, "received": received}


def streams(hosts: Hosts, request: Answer) -> Answer:
    peer, payload = PeerId.parse(request["peer"]), bytes(32)
    start = time.perf_counter()
    for _ in range(request["count"]):
        stream = hosts[0].open_stream(peer, ECHO)
        stream.sendall(payload)
        stream.shutdown(socket.SHUT_WR)
        if sum(map(len, stream)) != 32:
            raise RuntimeError("the echo is not complete")
        stream.close()
    return {"seconds": time.perf_counter() - start}


def cpu(hosts: Hosts, request: Answer) -> Answer:
    return dict(usage())


COMMANDS: dict[str, Callable[[Hosts, Answer], Answer]] = {
    function.__name__: function for function in (dial, disconnect, ping, perf, streams, cpu)
}


def answer(hosts: Hosts, request: Answer) -> None:
    try:
        result = COMMANDS[request["cmd"]](hosts, request)
    except Exception as error:
        say({"id": request["id"], "ok": False, "error": exchanges.one_line(error)})
    else:
        say({"id": request["id"], "ok": True, **result})


def main(count: int) -> None:
    with ExitStack() as stack:
        hosts = []
        for _ in range(count):
            host = stack.enter_context(Host(listen=[LOOPBACK], security=["noise"]))
            host.set_handler(ECHO, serve_echo)
            host.set_handler(PERF, serve_perf)
            hosts.append(host)
        exchanges.ready(hosts, "gevent")
        buffer = b""
        while data := gevent.os.tp_read(0, 1 << 16):
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                request = json.loads(line)
                if request["cmd"] == "stop":
                    say({"id": request["id"], "ok": True})
                    return
                gevent.spawn(answer, hosts, request)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--hosts", type=int, choices=(1, 2), default=1)
    args, _ = parser.parse_known_args()  # the harness also passes what other peers understand
    main(args.hosts)
