"""The transport contract of the interop suites, on anyp2p: one program, two roles.

listener                      redis                        dialer
   |-- RPUSH address ---------->|                             |
   |                            |<------------------ BLPOP ---|
   |<------------------------------------- connect, ping -----|
   | until it is stopped, or    |                             | two times on stdout,
   | the time is up: exit 1     |                             | exit 0

transport_terms.py tells what the environment says. The event loop is ``--runtime``, or that of
ANYP2P_RUNTIME. Everything but the result goes to stderr. The exit code of a dialer is 0 only if
its ping came back.

With wss every program of these suites makes a certificate of its own, for any name or none, and
no dialer verifies it. This one does as they do, and says so; a Host has no such option.
"""

import argparse
import ipaddress
import logging
import os
import signal
import ssl
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from loops import RUNTIMES, Sleep, run
from transport_terms import Terms, WrongUse

from anyp2p_core.multiaddr import Multiaddr

LISTEN = {
    "tcp": "/ip4/{ip}/tcp/0",
    "ws": "/ip4/{ip}/tcp/0/ws",
    "wss": "/ip4/{ip}/tcp/0/wss",
    "quic-v1": "/ip4/{ip}/udp/0/quic-v1",
}
WRONG_USE = 2


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    runtime = os.environ.get("ANYP2P_RUNTIME") or RUNTIMES[0]
    parser.add_argument("--runtime", choices=RUNTIMES, default=runtime)
    options = parser.parse_args()
    # As the first process of a container it would not be ended by SIGTERM otherwise.
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(128 + number))
    try:
        terms = Terms()
    except WrongUse as error:
        log(error)
        return WRONG_USE
    logging.basicConfig(level=logging.DEBUG if terms.debug else logging.WARNING)
    try:
        play(terms, options.runtime)
    except Exception as error:
        log(f"{type(error).__name__}: {str(error) or 'the time is up'}")
        return 1
    return 0


def play(terms: Terms, runtime: str) -> None:
    """Do what the role demands. Whatever it raises is a failure."""
    with ExitStack() as files:
        options = host_options(terms) | files.enter_context(web(terms))
        other = terms.await_address() if terms.dials else ""
        own = "" if terms.dials else terms.own_ip()

        async def dial(host: Any, sleep: Sleep) -> None:
            log(f"dialing {other}")
            started = time.perf_counter()
            peer = await host.connect(other)
            ping = await host.ping(peer)
            terms.report(time.perf_counter() - started, ping)

        async def listen(host: Any, sleep: Sleep) -> None:
            files.close()  # they have been read, and a listener does not end in good order
            address = published(host.addresses, terms.ip, own)
            log(f"listening at {address}")
            terms.publish(address)
            await sleep(terms.left() + 1)

        run(runtime, dial if terms.dials else listen, terms.left(), options)


def host_options(terms: Terms) -> dict[str, Any]:
    """A dialer listens, too: so what its transport needs is loaded before its clock starts."""
    options: dict[str, Any] = {"listen": [LISTEN[terms.transport].format(ip=terms.ip)]}
    if terms.security:
        options |= {"security": [terms.security], "muxers": [terms.muxer]}
    return options


def published(addresses: list[Multiaddr], ip: str, own: str) -> str:
    """The address for others, never a loopback one if there is another.

    ``own``: ours in the network of the test, which a dialer is in, too.
    """

    def loopback(address: Multiaddr) -> bool:
        return ipaddress.ip_address(address.components[0].value).is_loopback

    chosen = str(next((one for one in addresses if not loopback(one)), addresses[0]))
    if ipaddress.ip_address(ip).is_unspecified and not ipaddress.ip_address(own).is_loopback:
        chosen = f"/ip4/{own}/" + chosen.split("/", 3)[3]
    return chosen.replace("/tls/ws", "/wss")  # the form that everybody understands


@contextmanager
def web(terms: Terms) -> Iterator[dict[str, Any]]:
    """The options for wss: a certificate of our own, and anybody else's is as good."""
    if terms.transport != "wss":
        yield {}
        return
    from anyp2p.providers.web_certificate import self_signed

    if terms.dials:
        believe_anybody()
    with tempfile.TemporaryDirectory(prefix="anyp2p-") as directory:
        chain, key = Path(directory) / "chain.pem", Path(directory) / "key.pem"
        for path, content in zip((chain, key), self_signed("localhost", "127.0.0.1"), strict=True):
            path.write_bytes(content)
        # As if it mattered whom we trust: but then nobody looks for the system's authorities.
        yield {"web_certificate": (chain, key), "web_trust": chain}


def believe_anybody() -> None:
    """From here on no web certificate is verified in this process. For this contract only."""
    from anyp2p.providers import web_tls

    class Blind(web_tls.WebTls):
        def _dialing(self) -> ssl.SSLContext:
            context = super()._dialing()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            return context

    web_tls.WebTls = Blind  # type: ignore[misc]
    log("WARNING: web certificates are NOT verified, as this test demands; never do that elsewhere")


def log(what: object) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
