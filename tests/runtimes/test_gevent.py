"""gevent: the published checks, and streams that are used like sockets."""

import socket
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.event import AsyncResult, Event
from kit_checks import checks_on, run
from on_loops import Runtime
from programs import Program

from anyp2p.gevent import Host, Stream
from anyp2p.testing import Check
from anyp2p_core.errors import IncompleteRead, LocalError, StreamReset

LOOPBACK = "/ip4/127.0.0.1/tcp/0"
BLOCK = bytes(65536)


@checks_on("gevent")
def test_check(runtime: Runtime, check: Check) -> None:
    run(runtime, check)


@pytest.fixture
def ends() -> Iterator[tuple[Stream, Stream]]:
    """Both ends of a stream."""
    with gevent.Timeout(60), Host(listen=[LOOPBACK]) as server, Host() as client:
        taken: AsyncResult[Any] = AsyncResult()

        @server.handle("/test/1")
        def hand_over(stream: Stream) -> None:
            taken.set(stream)
            Event().wait()

        with client.open_stream(server.addresses[0], "/test/1") as one:
            yield one, taken.get()


def test_like_a_socket(ends: tuple[Stream, Stream]) -> None:
    one, other = ends
    one.sendall(b"hello world")
    assert other.recv(5) == b"hello"
    assert other.recv(100) == b" world"
    other.sendall(memoryview(b"answer"))
    assert one.recv_exactly(6) == b"answer"
    one.shutdown(socket.SHUT_RD)
    one.shutdown(socket.SHUT_WR)
    assert other.recv() == b""
    with pytest.raises(LocalError):
        one.sendall(b"more")
    other.sendall(b"ok")
    other.drain()
    other.shutdown(socket.SHUT_RDWR)
    assert list(one) == [b"ok"]
    with pytest.raises(IncompleteRead):
        one.recv_exactly(1)
    one.close()
    one.close()
    with pytest.raises(LocalError):
        one.recv()


def test_reset(ends: tuple[Stream, Stream]) -> None:
    one, other = ends
    one.reset(4)
    with pytest.raises(StreamReset) as caught:
        other.recv()
    assert caught.value.code == 4


def test_timeouts(ends: tuple[Stream, Stream]) -> None:
    one, other = ends
    assert one.gettimeout() is None
    one.settimeout(0.05)
    assert one.gettimeout() == 0.05
    with pytest.raises(TimeoutError, match=r"0\.05 s"):
        one.recv()
    with pytest.raises(TimeoutError):
        while True:
            one.sendall(BLOCK)
    one.settimeout(30)
    other.sendall(b"late")
    assert one.recv() == b"late"
    for wrong in (0, -1):
        with pytest.raises(ValueError):
            one.settimeout(wrong)


def test_makefile(ends: tuple[Stream, Stream]) -> None:
    one, other = ends
    with one.makefile("w", encoding="utf-8", newline="\n") as lines:
        lines.write("grün\n")
        lines.flush()
        lines.write("blau\n")
    with other.makefile("r", encoding="utf-8") as lines:
        assert lines.readline() == "grün\n"
        assert lines.readline() == "blau\n"
        both = other.makefile("rwb")
        both.write(b"binary")
        both.flush()
        assert one.makefile("rb", buffering=0).read(6) == b"binary"
        one.sendall(b"more\nlines\n")
        one.shutdown(socket.SHUT_WR)
        assert list(both) == [b"more\n", b"lines\n"]
    with pytest.raises(ValueError):
        one.makefile("r", buffering=0)


def test_a_gevent_timeout_ends_any_call(ends: tuple[Stream, Stream]) -> None:
    one, other = ends
    with gevent.Timeout(0.02, False):
        one.recv()
    other.sendall(b"still fine")
    assert one.recv() == b"still fine"


def test_nothing_is_patched() -> None:
    program = (
        "import socket, threading, anyp2p.gevent, gevent.monkey\n"
        "assert not gevent.monkey.is_module_patched('socket')\n"
        "assert not gevent.monkey.is_module_patched('threading')\n"
        "assert 'gevent' not in socket.socket.__module__\n"
    )
    assert Program("-c", program).ended() == (0, "", "")


def test_after_monkey_patch_all() -> None:
    code, out, err = Program("patched_program.py").ended()
    assert (code, out, err) == (0, "ok\n", "")
