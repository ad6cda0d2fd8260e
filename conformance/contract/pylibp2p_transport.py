"""The same contract as transport.py on py-libp2p, in whose virtual environment this runs."""

import importlib.util
import logging
import os
import ssl
import sys
import tempfile
import time
from pathlib import Path

import trio
from libp2p import generate_new_ed25519_identity, new_host
from libp2p.crypto.x25519 import create_new_key_pair as new_x25519_key_pair
from libp2p.host.ping import ID as PING, perform_ping_roundtrip
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE, Transport as NoiseTransport
from libp2p.security.tls.transport import PROTOCOL_ID as TLS, TLSTransport
from libp2p.stream_muxer.mplex.mplex import MPLEX_PROTOCOL_ID as MPLEX, Mplex
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX, Yamux
from multiaddr import Multiaddr
from transport_terms import Terms, WrongUse

LISTEN = {
    "tcp": "/ip4/{ip}/tcp/0",
    "ws": "/ip4/{ip}/tcp/0/ws",
    "wss": "/ip4/{ip}/tcp/0/wss",
    "quic-v1": "/ip4/{ip}/udp/0/quic-v1",
}
MUXERS = {"yamux": {YAMUX: Yamux}, "mplex": {MPLEX: Mplex}}
PROVIDERS = Path(__file__).resolve().parents[2] / "runtimes" / "anyp2p" / "providers"


def web():
    """Contexts for wss: with a certificate that nobody knows, and for believing anybody's."""
    path = PROVIDERS / "web_certificate.py"  # anyp2p is not installed here, and it does not matter
    spec = importlib.util.spec_from_file_location("web_certificate", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"".join(module.self_signed("localhost")))
        file.flush()
        server.load_cert_chain(file.name)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    return {"tls_server_config": server, "tls_client_config": client}


def make_host(terms, listen):
    key = generate_new_ed25519_identity()
    if terms.transport == "quic-v1":
        return new_host(key_pair=key, enable_quic=True, listen_addrs=[listen])
    if terms.security == "tls":
        security = {TLS: TLSTransport(key)}
    else:
        security = {NOISE: NoiseTransport(key, noise_privkey=new_x25519_key_pair().private_key)}
    return new_host(
        key_pair=key,
        sec_opt=security,
        muxer_opt=MUXERS[terms.muxer],
        listen_addrs=[listen],
        **(web() if terms.transport == "wss" else {}),
    )


async def run(terms, address, listen):
    host = make_host(terms, listen)
    with trio.fail_after(terms.left()):
        async with host.run([listen]):
            if not terms.dials:
                own = f"/p2p/{host.get_id()}"
                terms.publish(str(host.get_addrs()[0]).removesuffix(own) + own)
                await trio.sleep_forever()
            started = time.perf_counter()
            info = info_from_p2p_addr(Multiaddr(address))
            await host.connect(info)
            stream = await host.new_stream(info.peer_id, [PING])
            before = time.perf_counter()
            await perform_ping_roundtrip(stream)
            ended = time.perf_counter()
            terms.report(ended - started, ended - before)
            os._exit(0)  # its host waits for connections that are still open


def main():
    try:
        terms = Terms()
    except WrongUse as error:
        print(error, file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.DEBUG if terms.debug else logging.WARNING)
    try:
        address = terms.await_address() if terms.dials else ""
        ip = terms.own_ip() if terms.ip == "0.0.0.0" else terms.ip
        trio.run(run, terms, address, Multiaddr(LISTEN[terms.transport].format(ip=ip)))
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
