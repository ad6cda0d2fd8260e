"""Every way to talk, on every loop: security, muxers, transports, layers, private networks."""

import logging
import os
import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from on_loops import RUNTIMES, Kit
from web_authority import Files, make_files

from anyp2p.channels import Channels
from anyp2p.testing.kit import ECHO
from anyp2p_core import ConnectionClosed, DialError, LocalError
from anyp2p_core.pnet import PreSharedKey

LOOPS = ("asyncio", "uvloop", "trio", "anyio-asyncio", "anyio-trio", "gevent")
TRANSPORTS = {
    "tcp": "/ip4/127.0.0.1/tcp/0",
    "ws": "/ip4/127.0.0.1/tcp/0/ws",
    "wss": "/ip4/127.0.0.1/tcp/0/tls/ws",
    "unix": "/unix{directory}/a.sock",
    "memory": "/memory/0",
}
SECURITY = ("noise", "tls", "plaintext")
MUXERS = ("yamux", "mplex")
BLOCK = os.urandom(100_000)
KEYS = (PreSharedKey(b"k" * 32), PreSharedKey(b"K" * 32))


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_files(tmp_path_factory.mktemp("web"))


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path: names of Unix sockets have 107 bytes."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


async def talk(kit: Kit, options: dict[str, Any], dialer: dict[str, Any]) -> tuple[Any, Any]:
    """Two hosts do what hosts do and part in order. Returns the connection, as each has seen it."""
    async with kit.server(**options) as server, kit.host(**dialer) as client:
        closed: list[ConnectionClosed] = []
        for host in (server, client):
            kit.base(host).watch(ConnectionClosed, closed.append)
        [address] = server.addresses
        assert server.node.addresses == [address.split_peer()[0]]
        peer = await client.connect(address)
        assert peer == server.peer_id
        assert await client.ping(peer) >= 0
        [ours], [theirs] = client.node.connections(), server.node.connections()
        assert await server.ping(client.peer_id) >= 0
        stream = await client.open_stream(peer, ECHO)
        await stream.write(BLOCK)
        await stream.close_write()
        got = bytearray()
        while data := await stream.read():
            got += data
        assert got == BLOCK
        await stream.close()
        assert (await client.identify(peer)).protocols
        await client.disconnect(peer)
        await kit.eventually(
            lambda: len(closed) == 2 and not server.peers, "the peer has not seen the end"
        )
        assert [event.error for event in closed] == [None, None]
        # And the other way round.
        closed.clear()
        await client.connect(address)
        assert await client.ping(peer) >= 0
        await server.disconnect(client.peer_id)
        await kit.eventually(
            lambda: len(closed) == 2 and not client.peers, "the dialer has not seen the end"
        )
        assert [event.error for event in closed] == [None, None]
    kit.no_internal_errors()
    return ours, theirs


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("loop", LOOPS)
def test_every_way_to_talk(
    loop: str, transport: str, web: Files, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listen = [TRANSPORTS[transport].format(directory=directory)]
    caplog.set_level(logging.ERROR, "anyp2p")

    async def main(kit: Kit) -> None:
        for security, muxer in product(SECURITY, MUXERS):
            options = {"security": [security], "muxers": [muxer], **web.options}
            ours, theirs = await talk(kit, {"listen": listen, **options}, options)
            for connection in (ours, theirs):
                assert security in connection.negotiated.security
                assert muxer in connection.negotiated.muxer

    RUNTIMES[loop].run(main)
    assert caplog.records == []
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize("address", ["/ip4/127.0.0.1/udp/0/quic-v1", "/ip6/::1/udp/0/quic-v1"])
@pytest.mark.parametrize("loop", LOOPS)
def test_quic(loop: str, address: str) -> None:
    async def main(kit: Kit) -> None:
        ours, theirs = await talk(kit, {"listen": [address]}, {"security": ["noise"]})
        for connection in (ours, theirs):  # it brings its own, whatever is named
            assert connection.negotiated.security == "/tls/1.0.0"
            assert connection.negotiated.muxer == "/quic-v1"
        assert ours.remote == theirs.local

    RUNTIMES[loop].run(main)


@pytest.mark.parametrize("transport", ["tcp", "ws", "wss", "unix", "memory"])
def test_connections_know_their_addresses(transport: str, web: Files, directory: Path) -> None:
    listen = [TRANSPORTS[transport].format(directory=directory)]

    async def main(kit: Kit) -> None:
        ours, theirs = await talk(kit, {"listen": listen, **web.options}, web.options)
        assert ours.remote == theirs.local
        assert ours.local == theirs.remote
        end = {"ws": "/ws", "wss": "/tls/ws"}.get(transport, "")
        assert str(ours.remote).endswith(end)
        if transport in ("unix", "memory"):  # whoever dials has no name
            assert ours.local is None and str(ours.remote).startswith(f"/{transport}")
        else:
            assert str(ours.local).endswith(end)

    RUNTIMES["asyncio"].run(main)


# What is agreed on, and what cannot be.


@pytest.mark.parametrize(
    ("ours", "theirs", "security"),
    [
        (["tls", "noise"], ["noise", "tls"], "/tls/1.0.0"),  # the dialer's order counts
        (["noise", "tls"], ["tls"], "/tls/1.0.0"),
        (["noise"], ["plaintext", "tls", "noise"], "/noise"),
        (None, ["tls"], "/tls/1.0.0"),
        (None, None, "/noise"),
    ],
)
def test_the_first_that_both_have(ours: Any, theirs: Any, security: str) -> None:
    async def main(kit: Kit) -> None:
        options = {"security": theirs, "muxers": ["mplex", "yamux"]}
        connection, _ = await talk(kit, options, {"security": ours})
        assert connection.negotiated.security == security
        assert connection.negotiated.muxer == "/yamux/1.0.0"

    RUNTIMES["asyncio"].run(main)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"security": ["noise"]}, {"security": ["tls"]}),
        ({"security": ["tls", "plaintext"]}, {"security": ["noise"]}),
        ({"security": ["noise"], "muxers": ["mplex"]}, {"muxers": ["yamux"]}),
        ({"security": ["tls"], "muxers": ["mplex"]}, {"muxers": ["yamux"]}),
        (
            {"security": ["plaintext"], "muxers": ["mplex"]},
            {"security": ["plaintext"], "muxers": ["yamux"]},
        ),
    ],
)
def test_nothing_in_common(loop: str, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    async def main(kit: Kit) -> None:
        async with kit.server(**theirs) as server, kit.host(**ours) as client:
            error = await kit.fails(DialError, partial(client.connect, server.addresses[0]))
            assert str(server.node.addresses[0]) in str(error)
            await kit.eventually(lambda: not server.node._connections, "it is still there")
            options = {"security": theirs.get("security")}
            async with kit.host(**options) as friend:
                assert await friend.ping(server.addresses[0]) >= 0
        kit.no_internal_errors()

    RUNTIMES[loop].run(main)


def test_plaintext_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    async def main(kit: Kit) -> None:
        kit.host()
        assert caplog.records == []
        kit.host(security=["noise", "plaintext"])

    RUNTIMES["asyncio"].run(main)
    [record] = caplog.records
    assert record.levelname == "WARNING" and "plaintext" in record.getMessage()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"security": []}, "name at least one security protocol"),
        ({"security": "noise"}, r"as a list: \['noise'\]"),
        ({"security": ["/noise"]}, "'/noise' is no security protocol; there are noise, tls"),
        ({"muxers": []}, "name at least one muxer"),
        ({"muxers": "yamux"}, r"as a list: \['yamux'\]"),
        ({"muxers": ["spdy"]}, "'spdy' is no muxer; there are yamux, mplex"),
        ({"web_certificate": ("/nowhere/chain", "/nowhere/key")}, "/nowhere/chain"),
        ({"web_trust": "/nowhere/trust"}, "/nowhere/trust"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], text: str) -> None:
    async def main(kit: Kit) -> None:
        with pytest.raises(LocalError, match=text):
            kit.host(**options)

    RUNTIMES["asyncio"].run(main)


def test_a_name_given_twice_is_given_once() -> None:
    async def main(kit: Kit) -> None:
        host = kit.host(security=["noise", "tls", "noise"], muxers=["mplex", "mplex"])
        assert list(host.node.security) == ["/noise", "/tls/1.0.0"]
        assert list(host.node.muxers) == ["/mplex/6.7.0"]

    RUNTIMES["asyncio"].run(main)


@pytest.mark.parametrize("missing", ["websockets", "OpenSSL"])
def test_what_is_not_installed_is_not_offered(missing: str, monkeypatch: Any) -> None:
    import anyp2p.channels

    found = anyp2p.channels.find_spec
    monkeypatch.setattr(
        anyp2p.channels, "find_spec", lambda name: None if name == missing else found(name)
    )

    async def main(kit: Kit) -> None:
        async with kit.host() as host:
            if missing == "OpenSSL":
                assert list(host.node.security) == ["/noise"]
            else:
                error = await kit.fails(LocalError, partial(host.listen, "/ip4/127.0.0.1/tcp/0/ws"))
                assert "/ip4/127.0.0.1/tcp/0/ws" in str(error)
                assert "anyp2p[websocket]" in str(error)
                async with kit.server() as server:
                    [plain] = server.node.addresses
                    error = await kit.fails(DialError, partial(host.connect, f"{plain}/ws"))
                    assert "anyp2p[websocket]" in str(error)
                    assert await host.ping(server.addresses[0]) >= 0
        kit.no_internal_errors()

    RUNTIMES["asyncio"].run(main)


# Private networks.


@pytest.mark.parametrize("transport", ["tcp", "ws", "wss", "unix", "memory"])
@pytest.mark.parametrize("loop", LOOPS)
def test_a_private_network(loop: str, transport: str, web: Files, directory: Path) -> None:
    listen = [TRANSPORTS[transport].format(directory=directory)]
    file = directory / "swarm.key"
    file.write_text(KEYS[0].to_text())

    async def main(kit: Kit) -> None:
        options = {"listen": listen, "psk": KEYS[0], "muxers": ["yamux"], **web.options}
        await talk(kit, options, {**web.options, "psk": file})

    RUNTIMES[loop].run(main)


@pytest.mark.parametrize("transport", ["tcp", "ws"])
@pytest.mark.parametrize("keys", [(KEYS[0], KEYS[1]), (KEYS[0], None), (None, KEYS[0])])
@pytest.mark.parametrize("loop", LOOPS)
def test_another_key(loop: str, keys: Any, transport: str) -> None:
    listen = [TRANSPORTS[transport]]

    async def main(kit: Kit) -> None:
        theirs, ours = keys
        async with kit.server(listen=listen, psk=theirs) as server:
            async with kit.host(psk=ours) as client:
                for _ in range(3):
                    error = await kit.fails(DialError, partial(client.connect, server.addresses[0]))
                    if ours is not None:
                        assert "pre-shared key" in str(error)
                await kit.eventually(
                    lambda: not client.node._connections, "a connection is still there"
                )
            await kit.eventually(
                lambda: not server.node._connections, "a connection is still there"
            )
            async with kit.host(psk=theirs) as friend:
                assert await friend.ping(server.addresses[0]) >= 0
                assert len(server.node._connections) == 1
        kit.no_internal_errors()

    RUNTIMES[loop].run(main)


@pytest.mark.parametrize(
    ("content", "error"),
    [(None, FileNotFoundError), (b"", LocalError), (b"/key/swarm/psk/1.0.0/\n", LocalError)],
)
def test_a_key_file_that_is_none(content: bytes | None, error: Any, tmp_path: Path) -> None:
    file = tmp_path / "swarm.key"
    if content is not None:
        file.write_bytes(content)

    async def main(kit: Kit) -> None:
        with pytest.raises(error):
            kit.host(psk=file)

    RUNTIMES["asyncio"].run(main)


def test_the_key_is_not_shown() -> None:
    text = repr(Channels(psk=KEYS[0]))
    assert "kkkk" not in text and (b"k" * 32).hex() not in text


# Several ways at one port.


@pytest.mark.parametrize("psk", [None, KEYS[0]])
@pytest.mark.parametrize("loop", LOOPS)
def test_one_port_for_all(loop: str, psk: Any, web: Files) -> None:
    async def main(kit: Kit) -> None:
        options = {"psk": psk, **web.options}
        async with kit.server(**options) as server:
            [plain] = server.node.addresses
            told = [*await server.listen(f"{plain}/ws"), *await server.listen(f"{plain}/tls/ws")]
            assert [str(address.split_peer()[0]) for address in told] == [
                f"{plain}/ws",
                f"{plain}/tls/ws",
            ]
            assert len(server.addresses) == 3
            for address in server.addresses:
                async with kit.host(**options) as client:
                    assert await client.ping(address) >= 0
                    await client.disconnect(server.peer_id)
            await kit.eventually(lambda: not server.node._connections, "somebody is still there")
        kit.no_internal_errors()

    RUNTIMES[loop].run(main)


@pytest.mark.parametrize("listen", ["/ws", "/tls/ws"])
def test_what_is_not_offered_at_a_port_is_refused(listen: str, web: Files) -> None:
    async def main(kit: Kit) -> None:
        async with kit.server(listen=[f"/ip4/127.0.0.1/tcp/0{listen}"], **web.options) as server:
            plain = str(server.node.addresses[0]).removesuffix(listen)
            for other in {"", "/ws", "/tls/ws"} - {listen}:
                async with kit.host(**web.options) as client:
                    await kit.fails(DialError, partial(client.connect, plain + other))
            async with kit.host(**web.options) as client:
                assert await client.ping(server.addresses[0]) >= 0
        kit.no_internal_errors()

    RUNTIMES["asyncio"].run(main)


def test_a_server_that_nobody_vouches_for(web: Files) -> None:
    async def main(kit: Kit) -> None:
        address = "/ip4/127.0.0.1/tcp/0/tls/ws"
        async with kit.server(listen=[address], **web.options) as server, kit.host() as client:
            error = await kit.fails(DialError, partial(client.connect, server.addresses[0]))
            assert "web_trust" in str(error)
            plain = str(server.node.addresses[0])
            wrong = plain.replace("/tls/ws", "/tls/sni/example.org/ws")
            async with kit.host(**web.options) as other:
                error = await kit.fails(DialError, partial(other.connect, wrong))
                assert "example.org" in str(error)
                right = plain.replace("/tls/ws", "/tls/sni/localhost/ws")
                assert await other.ping(f"{right}/p2p/{server.peer_id}") >= 0
        kit.no_internal_errors()

    RUNTIMES["asyncio"].run(main)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    "end",
    [
        "/dns4/localhost/tcp/{port}/tls/sni/%s/ws" % ("a" * 64),
        "/dns4/localhost/tcp/{port}/tls/sni/-/ws",
        "/ip4/127.0.0.1/tcp/{port}/ws/http-path/%00",
        "/ip4/127.0.0.1/tcp/{port}/ws/http-path/%0D%0AHost%3A%20x",
        "/ip4/127.0.0.1/udp/{port}",
    ],
)
def test_strange_addresses_fail_the_dial_and_nothing_else(loop: str, end: str, web: Files) -> None:
    async def main(kit: Kit) -> None:
        async with kit.server(**web.options) as server, kit.host(**web.options) as client:
            port = server.node.addresses[0].get("tcp")
            strange = end.format(port=port)
            await kit.fails((DialError, LocalError), partial(client.connect, strange))
            await kit.eventually(lambda: not client.node._connections, "a connection is there")
            assert await client.ping(server.addresses[0]) >= 0
        kit.no_internal_errors()

    RUNTIMES[loop].run(main)
