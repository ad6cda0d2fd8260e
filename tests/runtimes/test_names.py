"""Names on every loop: those of the system, and a /dnsaddr that a real server tells of."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import dns.flags
import dns.message
import dns.rrset
import pytest
from on_loops import RUNTIMES, Kit

from anyp2p.providers import dns as provider
from anyp2p_core import DialError, dns as client_module

PEER = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
LOOPS = ("asyncio", "uvloop", "trio", "anyio-asyncio", "anyio-trio", "gevent")


class Server(threading.Thread):
    """Answers TXT questions, each after a forged answer and one that is none.

    With ``streams`` its datagrams are cut, and ``streams`` gets each TCP connection.
    """

    streams: Callable[[socket.socket, bytes], object] | None = None

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.records: dict[str, list[str]] = {}
        self.asked: list[str] = []
        self.sock, self.listener = _on_one_port()
        self.listening = threading.Thread(target=self.accept, daemon=True)
        self.listening.start()
        self.asked_by_stream: list[str] = []

    def accept(self) -> None:
        while True:
            sock, _ = self.listener.accept()
            with sock:
                if self.streams is None:
                    return
                size = int.from_bytes(sock.recv(2))
                if size:
                    query = dns.message.from_wire(sock.recv(size))
                    self.asked_by_stream.append(query.question[0].name.to_text())
                    self.streams(sock, self.answer(query).to_wire(max_size=65535))

    def answer(self, query: dns.message.Message) -> dns.message.Message:
        [question] = query.question
        answer = dns.message.make_response(query)
        for text in self.records.get(question.name.to_text(omit_final_dot=True), ()):
            answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", "TXT", text))
        return answer

    def run(self) -> None:
        while True:
            data, source = self.sock.recvfrom(4096)
            if not data:
                return
            query = dns.message.from_wire(data)
            self.asked.append(query.question[0].name.to_text(omit_final_dot=True))
            answer = self.answer(query)
            if self.streams is not None:
                answer.answer.clear()
                answer.flags |= dns.flags.TC
            forged = dns.message.make_response(query)
            forged.id ^= 1
            for reply in (b"garbage", forged.to_wire(), answer.to_wire()):
                self.sock.sendto(reply, source)

    def stop(self) -> None:
        self.sock.sendto(b"", self.sock.getsockname())
        self.join()
        self.streams = None
        socket.create_connection(self.sock.getsockname()).close()
        self.listening.join()
        self.listener.close()
        self.sock.close()


def _on_one_port() -> tuple[socket.socket, socket.socket]:
    """A UDP and a TCP socket."""
    while True:
        listener = socket.create_server(("127.0.0.1", 0))
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.bind(listener.getsockname())
        except OSError:  # the number is taken on the other side
            sock.close()
            listener.close()
        else:
            return sock, listener


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server()
    server.start()
    monkeypatch.setattr(provider, "system_servers", lambda: [server.sock.getsockname()])
    yield server
    server.stop()


@pytest.mark.parametrize("loop", LOOPS)
def test_a_dnsaddr(loop: str, server: Server) -> None:
    async def main(kit: Kit) -> None:
        async with kit.server() as host, kit.host() as client:
            server.records["_dnsaddr.one.test"] = [f"dnsaddr=/dnsaddr/two.test/p2p/{host.peer_id}"]
            server.records["_dnsaddr.two.test"] = [f"dnsaddr={host.addresses[0]}"]
            assert await client.ping(f"/dnsaddr/one.test/p2p/{host.peer_id}") >= 0
            [connection] = client.node.connections()
            assert connection.remote == host.node.addresses[0]
            error = await kit.fails(DialError, partial(client.connect, "/dnsaddr/three.test"))
            assert "_dnsaddr.three.test" in str(error)
            assert kit.base(client)._doors == {}
        kit.no_internal_errors()

    RUNTIMES[loop].run(main)
    assert server.asked == ["_dnsaddr.one.test", "_dnsaddr.two.test", "_dnsaddr.three.test"]


def _in_pieces(sock: socket.socket, answer: bytes) -> None:
    whole = len(answer).to_bytes(2) + answer
    for piece in (whole[:1], whole[1:40], whole[40:]):
        sock.sendall(piece)
        time.sleep(0.01)


@pytest.mark.parametrize("loop", LOOPS)
def test_an_answer_that_is_too_long_for_a_datagram(loop: str, server: Server) -> None:
    server.streams = _in_pieces

    async def main(kit: Kit) -> None:
        async with kit.server() as host, kit.host() as client:
            fill = [f"dnsaddr=/ip4/127.0.0.1/tcp/{number}/p2p/{PEER}" for number in range(1, 80)]
            server.records["_dnsaddr.long.test"] = [*fill, f"dnsaddr={host.addresses[0]}"]
            assert await client.ping(f"/dnsaddr/long.test/p2p/{host.peer_id}") >= 0
            await _nothing_is_left(kit, client)
        kit.no_internal_errors()

    RUNTIMES[loop].run(main)
    assert server.asked_by_stream == ["_dnsaddr.long.test."]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("answer", [b"", b"\0", b"\0\0", b"\0\x14half of one", b"\0\4junk"])
def test_a_server_that_hangs_up(loop: str, answer: bytes, server: Server) -> None:
    server.streams = lambda sock, _: sock.sendall(answer)

    async def main(kit: Kit) -> None:
        async with kit.host() as client:
            error = await kit.fails(DialError, partial(client.connect, "/dnsaddr/long.test"))
            assert "long.test" in str(error)
            await _nothing_is_left(kit, client)
        kit.no_internal_errors()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client_module, "TRY_TIMEOUT", 0.3)
        RUNTIMES[loop].run(main)
    assert 1 <= len(server.asked_by_stream) <= 3  # fewer when this machine was slow


@pytest.mark.parametrize("loop", LOOPS)
def test_a_server_that_says_nothing_while_the_host_closes(loop: str, server: Server) -> None:
    silent = threading.Event()
    server.streams = lambda sock, _: silent.wait(30)

    async def main(kit: Kit) -> None:
        async with kit.host() as client:

            async def dial() -> None:
                await kit.fails(ConnectionError, partial(client.connect, "/dnsaddr/long.test"))

            async def close() -> None:
                await kit.eventually(lambda: bool(server.asked_by_stream), "nothing was asked")
                await client.close()

            await kit.loop.together(dial, close)
            assert not kit.base(client)._sockets
        kit.no_internal_errors()

    try:
        RUNTIMES[loop].run(main)
    finally:
        silent.set()


async def _nothing_is_left(kit: Kit, client: Any) -> None:
    host = kit.base(client)
    names = host._names
    await kit.eventually(lambda: not (names._links or names._asking), "a question is left")
    assert not (host._dialing or names._doors)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("end", ["tcp/{}", "udp/{}/quic-v1"])
def test_a_name_of_the_system(loop: str, end: str) -> None:
    async def main(kit: Kit) -> None:
        listen = [f"/ip4/127.0.0.1/{end.format(0)}"]
        async with kit.server(listen=listen) as host, kit.host() as client:
            port = host.addresses[0].components[1].value
            address = f"/dns4/localhost/{end.format(port)}/p2p/{host.peer_id}"
            assert await client.ping(address) >= 0
        kit.no_internal_errors()

    RUNTIMES[loop].run(main)
