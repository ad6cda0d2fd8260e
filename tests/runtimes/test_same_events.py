"""Same input, same events: one recorded session, replayed on every runtime, byte for byte."""

import socket
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from hashlib import sha256
from typing import Any

import pytest
from on_loops import RUNTIMES
from recorded import COMMANDS, OPTIONS, THEIR_ADDRESS, Step, Traced, prepare, record

from anyp2p.testing import Kit
from anyp2p_core.multiaddr import Multiaddr


def host_class(kit: Kit) -> Callable[..., Any]:
    """The host of a runtime, with the script's time, identity and addresses."""
    make = kit._make_host
    if isinstance(make, partial):  # the example's, whose first argument is its loop
        return partial(_traced(make.func), *make.args)
    if make.__module__ == "anyp2p.gevent":  # the blocking face of a host that can be awaited
        from anyp2p.gevent_loop import Loop

        make = Loop
    return _traced(make)


def _traced(base: Any) -> type[Any]:
    class Replayed(Traced, base):  # type: ignore[misc]
        their_address = THEIR_ADDRESS

        def _dial(self, conn: int, address: Multiaddr) -> None:
            super()._dial(conn, self.their_address if address == THEIR_ADDRESS else address)

    return Replayed


class Replay:
    """Plays the remote peers with plain sockets, one step at a time."""

    def __init__(self, kit: Kit, host: Any, listener: socket.socket) -> None:
        self._kit = kit
        self._host = host
        self._listener = listener
        self._sockets: list[socket.socket] = []

    async def play(self, step: Step) -> None:
        host = self._host
        if step.what == "accept":
            port = int(host.really[0].get("tcp"))
            self._add(socket.create_connection(("127.0.0.1", port)))
        elif step.what == "data":
            assert self._sockets[step.argument].send(step.data) == len(step.data)
        elif step.what == "eof":
            self._sockets[step.argument].shutdown(socket.SHUT_WR)
        elif step.what == "timer":
            host.time = step.argument
            host.on_timer()
        else:
            host._spawn(COMMANDS[step.argument], host)
        await self._kit.eventually(
            lambda: len(host.node.trace) >= step.lines,
            f"{step.what} {step.argument}: {step.lines} lines were expected, the last ones are"
            f" {host.node.trace[-3:]}",
        )
        if step.argument == "dial_out":
            self._add(self._listener.accept()[0])
        for sock in self._sockets:
            _drain(sock)

    def _add(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sockets.append(sock)

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()


def _drain(sock: socket.socket) -> None:
    try:
        while sock.recv(65536):
            pass
    except OSError:
        pass


@pytest.fixture(scope="module")
def recording() -> tuple[list[Step], list[str]]:
    return record()


def test_recording_is_reproducible(recording: tuple[list[Step], list[str]]) -> None:
    assert record() == recording
    steps, trace = recording
    assert len(steps) > 30 and len(trace) > 80
    for what in ("PingSucceeded", "PerfFinished", "PeerIdentified", "DialFailed", "set_timer"):
        assert any(what in line for line in trace), what


@pytest.mark.parametrize("name", RUNTIMES)
def test_every_runtime_leaves_the_same_trace(
    name: str, recording: tuple[list[Step], list[str]]
) -> None:
    steps, expected = recording

    async def main(kit: Kit) -> list[str]:
        with ExitStack() as stack:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            host = host_class(kit)(**OPTIONS)
            host.their_address = Multiaddr(f"/ip4/127.0.0.1/tcp/{listener.getsockname()[1]}")
            prepare(host)
            replay = Replay(kit, host, listener)
            stack.callback(replay.close)
            async with host:
                for step in steps:
                    await replay.play(step)
                trace: list[str] = host.node.trace[:]
            return trace

    trace = RUNTIMES[name].run(main)
    for number, (line, other) in enumerate(zip(trace, expected, strict=False)):
        assert line == other, f"line {number} of the trace"
    assert digest(trace) == digest(expected)


def digest(trace: list[str]) -> str:
    return sha256("\n".join(trace).encode()).hexdigest()
