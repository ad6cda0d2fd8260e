"""Names on every loop: those of the system, and a /dnsaddr that a real server tells of."""

import socket
import threading
from collections.abc import Iterator
from functools import partial

import dns.message
import dns.rrset
import pytest
from on_loops import RUNTIMES, Kit

from anyp2p.providers import dns as provider
from anyp2p_core import DialError

LOOPS = ("asyncio", "uvloop", "trio", "anyio-asyncio", "anyio-trio", "gevent")


class Server(threading.Thread):
    """Answers TXT questions, each after a forged answer and one that is none."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.records: dict[str, list[str]] = {}
        self.asked: list[str] = []
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))

    def run(self) -> None:
        while True:
            data, source = self.sock.recvfrom(4096)
            if not data:
                return
            query = dns.message.from_wire(data)
            [question] = query.question
            name = question.name.to_text(omit_final_dot=True)
            self.asked.append(name)
            answer = dns.message.make_response(query)
            for text in self.records.get(name, ()):
                answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", "TXT", text))
            forged = dns.message.make_response(query)
            forged.id ^= 1
            for reply in (b"garbage", forged.to_wire(), answer.to_wire()):
                self.sock.sendto(reply, source)

    def stop(self) -> None:
        self.sock.sendto(b"", self.sock.getsockname())
        self.join()
        self.sock.close()


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
