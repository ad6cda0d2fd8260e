"""TLS of libp2p's kind by library calls alone, over asyncio: the bound of a first ping.

One connection is: TCP connect and accept (asyncio protocols), the TLS 1.3 handshake of pyOpenSSL
through memory BIOs with certificates of libp2p's kind at both ends, at each end the verification
of the certificate's own signature and of the identity's, 32 bytes there and back, close. There is
no multistream-select, no muxer, no identify, and no limit.
"""

import asyncio
import json
import sys
import time
from contextlib import suppress
from typing import Any

import OpenSSL
from channels_certificate import check, make
from OpenSSL import SSL
from process import say, usage

Answer = dict[str, Any]
CHUNK = 16 * 1024


def contexts() -> tuple[SSL.Context, SSL.Context]:
    certificate, key = make()
    made = []
    for method in (SSL.TLS_CLIENT_METHOD, SSL.TLS_SERVER_METHOD):
        context = SSL.Context(method)
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        context.set_options(SSL.OP_NO_TICKET)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_tls13_ciphersuites(b"TLS_AES_128_GCM_SHA256")
        context.set_verify_depth(0)
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
        context.use_certificate(certificate)
        context.use_privatekey(key)
        made.append(context)
    made[1].set_alpn_select_callback(lambda connection, offered: offered[0])
    return made[0], made[1]


class End(asyncio.Protocol):
    """One end of one connection; the server's sends back what comes."""

    def __init__(self, context: SSL.Context, pong: "asyncio.Future[None] | None") -> None:
        self._pong = pong
        self._tls = SSL.Connection(context, None)
        self._open = False
        if pong is not None:
            self._tls.set_alpn_protos([b"/yamux/1.0.0", b"libp2p"])
            self._tls.set_connect_state()
        else:
            self._tls.set_accept_state()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self._pong is not None:
            self._shake_hands()

    def data_received(self, data: bytes) -> None:
        self._tls.bio_write(data)
        if not self._open:
            self._shake_hands()
            if not self._open:
                return
        try:
            data = self._tls.recv(CHUNK)
        except SSL.WantReadError:
            return
        except SSL.ZeroReturnError:
            self.transport.close()
            return
        if self._pong is not None:
            self._pong.set_result(None)
            return
        self._tls.send(data)
        self._flush()

    def close(self) -> None:
        self._tls.shutdown()
        self._flush()
        self.transport.close()

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except SSL.WantReadError:
            self._flush()
            return
        certificate = self._tls.get_peer_certificate()
        assert certificate is not None
        check(certificate.to_cryptography())
        self._open = True
        if self._pong is not None:
            self._tls.send(bytes(32))  # with the last message of the handshake
            self._flush()

    def _flush(self) -> None:
        with suppress(SSL.WantReadError):
            self.transport.write(self._tls.bio_read(CHUNK))


async def first_pings(client: SSL.Context, request: Answer) -> Answer:
    loop = asyncio.get_running_loop()
    words = request["address"].split("/")
    host, port, seconds = words[2], int(words[4]), 0.0
    for _ in range(request["count"]):
        start = time.perf_counter()
        pong: asyncio.Future[None] = loop.create_future()
        _, end = await loop.create_connection(lambda p=pong: End(client, p), host, port)  # type: ignore[misc]
        await pong
        seconds += time.perf_counter() - start
        end.close()
        await asyncio.sleep(0)
    return {"seconds": seconds}


async def main() -> None:
    loop = asyncio.get_running_loop()
    stdin = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    client, server_context = contexts()
    server = await loop.create_server(lambda: End(server_context, None), "127.0.0.1", 0)
    say(
        {
            "event": "ready",
            "peer": "raw",
            "addresses": [f"/ip4/127.0.0.1/tcp/{server.sockets[0].getsockname()[1]}/p2p/raw"],
            "agent": "pyOpenSSL",
            "implementation": f"pyOpenSSL {OpenSSL.__version__} alone",
        }
    )
    while line := await stdin.readline():
        request = json.loads(line)
        number, command = request["id"], request["cmd"]
        if command == "stop":
            say({"id": number, "ok": True})
            return
        try:
            answer = dict(usage()) if command == "cpu" else await first_pings(client, request)
        except Exception as error:
            say({"id": number, "ok": False, "error": f"{type(error).__name__}: {error}"})
        else:
            say({"id": number, "ok": True, **answer})


if __name__ == "__main__":
    asyncio.run(main())
