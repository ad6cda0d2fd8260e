"""Faults that concern a whole process: `python faults_program.py <runtime> <scenario>`."""

import os
import resource
import signal
import socket
import sys
from contextlib import ExitStack
from typing import Any

from on_loops import RUNTIMES

from anyp2p.testing import Kit
from anyp2p_core.errors import DialError

HELLO = b"\x13/multistream/1.0.0\n"


async def no_descriptors(kit: Kit) -> None:
    """With none left, accepting backs off and goes on later; what is open goes on working."""
    with ExitStack() as hoard:
        latecomer = hoard.enter_context(socket.socket())
        latecomer.setblocking(False)
        async with kit.pair() as pair:
            await pair.works()
            port = int(pair.server.addresses[0].get("tcp"))
            used = max(map(int, os.listdir("/proc/self/fd")))
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + 3, hard))
            hoarded = []
            with kit.logged() as lines:
                try:
                    while True:
                        hoarded.append(os.open(os.devnull, os.O_RDONLY))
                except OSError:
                    pass
                begin = kit.base(pair.server).now()
                latecomer.connect_ex(("127.0.0.1", port))
                await kit.eventually(
                    lambda: any("cannot accept" in line for line in lines), "nothing was logged"
                )
                stranger = f"/ip4/127.0.0.1/tcp/{port}"
                error = await kit.fails(DialError, lambda: pair.client.connect(stranger))
                assert "Too many open files" in str(error), error
                for _ in range(30):
                    await pair.works()
                    await kit.loop.sleep(0.02)
                spent = kit.base(pair.server).now() - begin
                for descriptor in hoarded:
                    os.close(descriptor)
                assert len(lines) <= 2 + spent / 0.4, (
                    f"{len(lines)} lines in {spent} s: {lines[:9]}"
                )
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                latecomer.send(HELLO)
                await kit.eventually(lambda: _answer(latecomer), "it does not accept any more")
            await pair.client.connect(stranger)
            await pair.works()


def _answer(sock: socket.socket) -> bytes:
    try:
        return sock.recv(100)
    except BlockingIOError:
        return b""


async def interrupted(kit: Kit) -> None:
    """SIGINT while a program waits: the hosts close in order, and it comes out."""
    async with kit.pair() as pair:
        hosts.extend([pair.client, pair.server])
        stream = await pair.open()
        await stream.write(b"x")
        assert await stream.readexactly(1) == b"x"
        print("ready", flush=True)
        await stream.read()


async def interrupted_in_a_handler(kit: Kit) -> None:
    """The same when it hits the code of a handler."""
    async with kit.pair() as pair:
        hosts.extend([pair.client, pair.server])

        async def strike(stream: Any) -> None:
            await stream.read()
            signal.raise_signal(signal.SIGINT)
            await stream.read()

        pair.server.set_handler("/strike/1", strike)
        stream = await pair.open("/strike/1")
        await stream.write(b"now")
        await kit.loop.sleep(60)


async def exit_in_a_handler(kit: Kit) -> None:
    """SystemExit in a handler ends the program, as anywhere else."""
    async with kit.pair() as pair:

        async def leave(stream: Any) -> None:
            await stream.read()
            sys.exit(7)

        pair.server.set_handler("/leave/1", leave)
        stream = await pair.open("/leave/1")
        await stream.write(b"now")
        await kit.loop.sleep(60)


hosts: list[Any] = []


def main() -> None:
    runtime, scenario = sys.argv[1:]
    try:
        RUNTIMES[runtime].run(globals()[scenario])
    except KeyboardInterrupt:
        print("interrupted", len(hosts) == 2 and all(_closed(host) for host in hosts), flush=True)


def _closed(host: Any) -> bool:
    blocking = getattr(host, "blocking", None)
    found: bool = (host if blocking is None else blocking._loop).closed
    return found


if __name__ == "__main__":
    main()
