"""After ``monkey.patch_all`` everything works as before, also from threads, which are greenlets."""

from gevent import monkey

if __name__ == "__main__":
    monkey.patch_all()

import logging
import threading
from typing import Any

from anyp2p.gevent import Host, Stream
from anyp2p_core.errors import DialError

LOOPBACK = "/ip4/127.0.0.1/tcp/0"


def main() -> None:
    logging.basicConfig(level=logging.DEBUG, stream=open("/dev/null", "w"))  # noqa: SIM115
    with Host(listen=[LOOPBACK], echo=True, perf=True) as server, Host() as client:

        @server.handle("/shout/1")
        def shout(stream: Stream) -> None:
            for line in stream.makefile("rb"):
                stream.sendall(line.upper())

        peer = client.connect(server.addresses[0])
        outcome: list[Any] = []

        def work() -> None:
            with client.open_stream(peer, "/shout/1") as stream:
                stream.sendall(b"hello\n" * 1000)
                outcome.append(stream.recv_exactly(6000))
            outcome.append(client.ping(peer) > 0)

        threads = [threading.Thread(target=work) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(map(str, outcome)) == sorted(map(str, [b"HELLO\n" * 1000, True] * 10))
        result = client.perf(peer, 10**6, 10**6)
        assert result.downloaded == 10**6
        try:
            client.connect("/ip4/127.0.0.1/tcp/1")
        except DialError as error:
            assert "refused" in str(error)
        client.disconnect(peer)
        assert client.connect("/dns4/localhost" + _port(server)) == peer
    print("ok")


def _port(host: Host) -> str:
    return f"/tcp/{host.addresses[0].get('tcp')}"


if __name__ == "__main__":
    main()
