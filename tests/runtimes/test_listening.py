"""Where hosts listen: what others are told, what cannot be, and what is left behind."""

import asyncio
import errno
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from on_loops import RUNTIMES, Kit
from web_authority import Files, make_files

import anyp2p.asyncio
import anyp2p.listening
from anyp2p import memory
from anyp2p.listening import expand, interface_addresses
from anyp2p.sockets import bound_addresses, socket_multiaddr
from anyp2p.testing.kit import LOOPBACK
from anyp2p_core import DialError, ListenError, LocalError, Multiaddr

LOOPS = ("asyncio", "uvloop", "trio", "anyio-asyncio", "anyio-trio", "gevent")
on_loops = pytest.mark.parametrize("loop", LOOPS)


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_files(tmp_path_factory.mktemp("web"))


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path: names of Unix sockets have 107 bytes."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


def stale(path: Path) -> None:
    """What a process leaves that is killed."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


# All interfaces.


@on_loops
@pytest.mark.parametrize("host", ["/ip4/0.0.0.0", "/ip6/::"])
def test_all_interfaces(loop: str, host: str) -> None:
    loopback = "/ip4/127.0.0.1/" if host.startswith("/ip4") else "/ip6/::1/"

    async def main(kit: Kit) -> None:
        async with kit.host() as server, kit.host() as client:
            told = await server.listen(f"{host}/tcp/0")
            assert told == server.addresses
            assert str(told[0]).startswith(loopback)
            for address in told:
                assert not str(address).startswith((f"{host}/", "/ip6/fe80", "/ip4/169.254"))
            assert len({address.get("tcp") for address in told}) == 1
            assert await client.ping(told[0]) >= 0
        kit.no_internal_errors()

    if host == "/ip6/::" and not has_ip6():
        pytest.skip("there is no IPv6 here")
    RUNTIMES[loop].run(main)


def has_ip6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.parametrize("end", ["", "/ws", "/tls/ws"])
def test_layers_on_all_interfaces(end: str, web: Files) -> None:
    """The socket is bound to all addresses, and connections come to one of them."""

    async def main(kit: Kit) -> None:
        listen = [f"/ip4/0.0.0.0/tcp/0{end}"]
        async with kit.server(listen=listen, **web.options) as server:  # noqa: SIM117
            async with kit.host(**web.options) as client:
                told = server.addresses[0]
                assert str(told.split_peer()[0]).endswith(end)
                assert await client.ping(told) >= 0
                other = "/ws" if end == "" else ""
                plain = str(told.split_peer()[0]).removesuffix(end)
                if end:
                    await kit.fails(DialError, partial(client.connect, plain + other))
                wide = f"/ip4/0.0.0.0/tcp/{told.get('tcp')}{other}"
                [shared, *_] = await server.listen(wide)
                async with kit.host(**web.options) as second:
                    assert await second.ping(shared) >= 0
                    assert await second.ping(told) >= 0
        kit.no_internal_errors()

    RUNTIMES["asyncio"].run(main)


def adapters(*hosts: Any) -> Any:
    ips = [SimpleNamespace(ip=host, is_IPv6=isinstance(host, tuple)) for host in hosts]
    return [SimpleNamespace(ips=ips[:2]), SimpleNamespace(ips=ips[2:])]


def test_addresses_of_interfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    import ifaddr

    found = adapters(
        "127.0.0.1",
        ("::1", 0, 0),
        "192.0.2.7",
        ("fe80::1", 0, 2),
        ("FE80::2", 0, 3),
        ("febf::3", 0, 3),
        "169.254.1.1",
        ("2001:db8::7", 0, 0),
        "192.0.2.7",
    )
    monkeypatch.setattr(ifaddr, "get_adapters", lambda: found)
    assert interface_addresses("ip4") == ["127.0.0.1", "192.0.2.7"]
    assert interface_addresses("ip6") == ["::1", "2001:db8::7"]
    assert [str(one) for one in expand(Multiaddr("/ip4/0.0.0.0/tcp/1/ws"))] == [
        "/ip4/127.0.0.1/tcp/1/ws",
        "/ip4/192.0.2.7/tcp/1/ws",
    ]
    assert [str(one) for one in expand(Multiaddr("/ip6/::/udp/1/quic-v1"))] == [
        "/ip6/::1/udp/1/quic-v1",
        "/ip6/2001:db8::7/udp/1/quic-v1",
    ]
    monkeypatch.setattr(ifaddr, "get_adapters", lambda: [])
    assert [str(one) for one in expand(Multiaddr("/ip6/::/tcp/1"))] == ["/ip6/::/tcp/1"]


@pytest.mark.parametrize(
    "address",
    [
        "/ip4/192.0.2.1/tcp/1",
        "/ip6/::1/tcp/1",
        "/memory/1",
        "/unix/0.0.0.0",
        "/dns4/localhost/tcp/1",
    ],
)
def test_other_addresses_are_what_they_are(address: str) -> None:
    assert expand(Multiaddr(address)) == [Multiaddr(address)]


def test_addresses_of_interfaces_without_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anyp2p.listening, "find_spec", lambda name: None)
    for family, loopback in (("ip4", "127.0.0.1"), ("ip6", "::1")):
        found = interface_addresses(family)
        assert found[0] == loopback and len(found) in (1, 2)


# Addresses that share a port.


@on_loops
def test_several_addresses(loop: str, directory: Path) -> None:
    async def main(kit: Kit) -> None:
        listen = [LOOPBACK, LOOPBACK, f"/unix{directory}/a", "/memory/0", f"{LOOPBACK}/ws"]
        async with kit.server(listen=listen) as server:
            assert len(set(server.addresses)) == 5
            for address in server.addresses:
                async with kit.host() as client:
                    assert await client.connect(address) == server.peer_id
        kit.no_internal_errors()

    RUNTIMES[loop].run(main)


@pytest.mark.parametrize("first", ["", "/ws", "/tls/ws"])
def test_a_port_may_be_shared_in_any_order_and_each_way_once(first: str, web: Files) -> None:
    async def main(kit: Kit) -> None:
        async with kit.host(**web.options) as host:
            [bound] = await host.listen(LOOPBACK + first)
            plain = str(bound.split_peer()[0]).removesuffix(first)
            for end in ("", "/ws", "/tls/ws"):
                address = f"{plain}{end}/p2p/{host.peer_id}"
                if end == first:
                    error = await kit.fails(ListenError, partial(host.listen, address))
                    assert error.errno == errno.EADDRINUSE
                else:
                    assert await host.listen(address) == [Multiaddr(address)]
                    assert (await kit.fails(ListenError, partial(host.listen, address))).errno
            assert len(host.addresses) == 3
            async with kit.host() as other:  # the port is that host's alone
                for end in ("", "/ws"):
                    error = await kit.fails(ListenError, partial(other.listen, plain + end))
                    assert error.errno == errno.EADDRINUSE and plain in str(error)

    RUNTIMES["asyncio"].run(main)


# What cannot be.


@on_loops
def test_errors_name_the_address(loop: str, directory: Path) -> None:
    (directory / "file").write_text("precious")
    (directory / "link").symlink_to(directory / "nowhere")
    stale(directory / "stale")
    (directory / "link to a socket").symlink_to(directory / "stale")
    before = sorted(directory.iterdir())

    async def main(kit: Kit) -> None:
        async with kit.host(listen=[LOOPBACK, "/memory/0"]) as host, kit.host() as other:
            taken, number = host.node.addresses
            for address, code in (
                (taken, errno.EADDRINUSE),
                (f"{taken}/ws", errno.EADDRINUSE),
                ("/ip4/198.51.100.1/tcp/0", errno.EADDRNOTAVAIL),
                ("/ip4/198.51.100.1/tcp/0/ws", errno.EADDRNOTAVAIL),
                (number, errno.EADDRINUSE),
                (f"/unix{directory}/missing/a.sock", errno.ENOENT),
                (f"/unix{directory}/file/a.sock", errno.ENOTDIR),
                (f"/unix{directory}/file", errno.EADDRINUSE),
                (f"/unix{directory}/link", errno.EADDRINUSE),
                (f"/unix{directory}/link to a socket", errno.EADDRINUSE),
                (f"/unix{directory}", errno.EADDRINUSE),
                (f"/unix{directory}/{'a' * 120}", None),
            ):
                error = await kit.fails(ListenError, partial(other.listen, address))
                assert str(address) in str(error)
                assert error.errno == code, address
                assert other.addresses == []
            for strange in ("/ip4/127.0.0.1/udp/0", "/ip4/127.0.0.1/sctp/1", "/memory/1/ws"):
                error = await kit.fails(LocalError, partial(other.listen, strange))
                assert strange in str(error)
            assert await other.listen(LOOPBACK)
        kit.no_internal_errors()

    RUNTIMES[loop].run(main)
    assert sorted(directory.iterdir()) == before
    assert (directory / "file").read_text() == "precious"


def test_web_tls_without_a_certificate() -> None:
    async def main(kit: Kit) -> None:
        async with kit.host() as host:
            address = "/ip4/127.0.0.1/tcp/0/tls/ws"
            error = await kit.fails(LocalError, partial(host.listen, address))
            assert "web_certificate=" in str(error) and address in str(error)

    RUNTIMES["asyncio"].run(main)


def test_quic_in_a_private_network() -> None:
    async def main(kit: Kit) -> None:
        from anyp2p_core.pnet import PreSharedKey

        async with kit.host(psk=PreSharedKey(bytes(32))) as host:
            address = "/ip4/127.0.0.1/udp/0/quic-v1"
            error = await kit.fails(LocalError, partial(host.listen, address))
            assert "private network" in str(error) and address in str(error)

    RUNTIMES["asyncio"].run(main)


# Unix sockets.


@on_loops
def test_the_name_is_removed_and_may_be_taken_again(loop: str, directory: Path) -> None:
    address = f"/unix{directory}/a.sock"

    async def main(kit: Kit) -> None:
        for _ in range(2):
            async with kit.server(listen=[address]) as server, kit.host() as client:
                assert [str(one) for one in server.node.addresses] == [address]
                assert (directory / "a.sock").is_socket()
                assert await client.ping(f"{address}/p2p/{server.peer_id}") >= 0
                error = await kit.fails(ListenError, partial(client.listen, address))
                assert error.errno == errno.EADDRINUSE
                assert await client.ping(server.peer_id) >= 0
            assert list(directory.iterdir()) == []
        async with kit.host() as client:
            error = await kit.fails(DialError, partial(client.connect, address))
            assert address in str(error) and "No such file" in str(error)
        kit.no_internal_errors()

    RUNTIMES[loop].run(main)


@on_loops
def test_a_name_that_a_killed_process_left(loop: str, directory: Path) -> None:
    stale(directory / "a.sock")

    async def main(kit: Kit) -> None:
        address = f"/unix{directory}/a.sock"
        async with kit.host() as client:
            error = await kit.fails(DialError, partial(client.connect, address))
            assert "refused" in str(error)
            async with kit.server(listen=[address]) as server:
                assert await client.ping(server.addresses[0]) >= 0
        kit.no_internal_errors()

    RUNTIMES[loop].run(main)
    assert list(directory.iterdir()) == []


@on_loops
def test_the_first_of_two_addresses_is_given_back(loop: str, directory: Path) -> None:
    async def main(kit: Kit) -> None:
        listen = [f"/unix{directory}/a.sock", "/memory/77", f"/unix{directory}/b/c.sock"]

        async def start() -> None:
            async with kit.host(listen=listen):
                raise AssertionError("it started")

        error = await kit.fails(ListenError, start)
        assert listen[2] in str(error)
        assert list(directory.iterdir()) == [] and not memory.is_taken(77)

    RUNTIMES[loop].run(main)


@on_loops
@pytest.mark.parametrize("name", [b"\xff\xfe", b"a\nb", b"n" * 90, b""])
def test_whoever_connects_may_have_any_name(loop: str, name: bytes, directory: Path) -> None:
    async def main(kit: Kit) -> None:
        async with kit.server(listen=[f"/unix{directory}/a.sock"]) as server:
            with socket.socket(socket.AF_UNIX) as sock:
                if name:
                    sock.bind((os.fsencode(directory) + b"/" + name)[:107])
                sock.connect(f"{directory}/a.sock")
                await kit.eventually(lambda: server.node._connections, "it is not taken")
                async with kit.host() as client:
                    assert await client.ping(server.addresses[0]) >= 0
            await kit.eventually(lambda: not server.node._connections, "it is still there")
        kit.no_internal_errors()

    RUNTIMES[loop].run(main)


@on_loops
def test_a_unix_socket_whose_queue_is_full(loop: str, directory: Path) -> None:
    async def main(kit: Kit) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            path = f"{directory}/a.sock"
            listener.bind(path)
            listener.listen(0)
            queued = [socket.socket(socket.AF_UNIX) for _ in range(4)]
            try:
                for each in queued:
                    each.setblocking(False)
                    each.connect_ex(path)
                async with kit.host() as client:
                    error = await kit.fails(DialError, partial(client.connect, f"/unix{path}"))
                    assert os.strerror(errno.EAGAIN) in str(error)
            finally:
                for each in queued:
                    each.close()
        kit.no_internal_errors()

    RUNTIMES[loop].run(main)


# This process.


@on_loops
def test_memory(loop: str) -> None:
    async def main(kit: Kit) -> None:
        async with kit.host() as client:
            async with kit.server(listen=["/memory/0", "/memory/0", "/memory/4242"]) as server:
                one, other, chosen = server.node.addresses
                assert len({one, other, chosen}) == 3 and str(chosen) == "/memory/4242"
                assert memory.is_taken(4242) and not memory.is_taken(4243)
                for address in (one, "/memory/4242", str(one)):
                    error = await kit.fails(ListenError, partial(client.listen, address))
                    assert "somebody in this process" in str(error)
                for address in server.addresses:
                    assert await client.ping(address) >= 0
                for nobody in ("/memory/0", "/memory/4243", f"/memory/{2**64 - 1}"):
                    error = await kit.fails(DialError, partial(client.connect, nobody))
                    assert f"nobody in this process listens on {nobody}" in str(error)
            assert not memory.is_taken(4242)
            error = await kit.fails(DialError, partial(client.connect, "/memory/4242"))
            assert "nobody in this process" in str(error)
            assert [str(one.split_peer()[0]) for one in await client.listen("/memory/4242")] == [
                "/memory/4242"
            ]
        assert not memory.is_taken(4242)
        kit.no_internal_errors()

    RUNTIMES[loop].run(main)


@pytest.mark.parametrize(("here", "there"), [("asyncio", "trio"), ("trio", "uvloop")])
def test_memory_between_loops_in_threads(here: str, there: str) -> None:
    addresses: list[Any] = []
    ready, done = threading.Event(), threading.Event()

    async def serve(kit: Kit) -> None:
        async with kit.server(listen=["/memory/0"]) as server:
            addresses.extend(server.addresses)
            ready.set()
            while not done.is_set():
                await kit.loop.sleep(0.005)
        kit.no_internal_errors()

    async def use(kit: Kit) -> None:
        async with kit.host(listen=["/memory/0"]) as client:
            assert client.node.addresses[0] != addresses[0].split_peer()[0]
            assert await client.ping(addresses[0]) >= 0
        kit.no_internal_errors()

    thread = threading.Thread(target=RUNTIMES[there].run, args=(serve,))
    thread.start()
    try:
        assert ready.wait(30)
        RUNTIMES[here].run(use)
    finally:
        done.set()
        thread.join()


def test_numbers_are_taken_once_by_many_threads() -> None:
    taken: list[int] = []
    threads = [
        threading.Thread(target=lambda: taken.extend(memory.take(0) for _ in range(50)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(taken)) == len(taken) == 400
    for number in taken:
        memory.give_back(number)
        memory.give_back(number)  # harmless
    assert not any(map(memory.is_taken, taken))


def test_names_that_only_look_like_ours() -> None:
    prefix = memory.path_of(7).removesuffix("7")
    assert memory.number_of(memory.path_of(7)) == 7
    for end in ("", "x", "-7", "\u00b2", "7\n"):
        assert memory.number_of(prefix + end) is None
    assert memory.number_of("") is memory.number_of("/a-7") is None
    assert socket_multiaddr(prefix + str(2**64)) is None
    assert socket_multiaddr(prefix + "7") == Multiaddr("/memory/7")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_leaves_its_parents_names_alone(directory: Path) -> None:
    async def main() -> None:
        listen = [f"/unix{directory}/a.sock", "/memory/99"]
        async with anyp2p.asyncio.Host(listen=listen) as host:
            pid = os.fork()
            if not pid:
                with suppress(BaseException):
                    asyncio.new_event_loop().run_until_complete(host.close())
                os._exit(memory.is_taken(99) or memory.take(99) != 99)
            assert os.waitpid(pid, 0)[1] == 0
            assert (directory / "a.sock").is_socket() and memory.is_taken(99)
            async with anyp2p.asyncio.Host() as client:
                for address in host.addresses:
                    assert await client.connect(address) == host.peer_id

    asyncio.run(main())


# What names of sockets mean.


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (("192.0.2.1", 80), "/ip4/192.0.2.1/tcp/80"),
        (("2001:db8::1", 80, 0, 0), "/ip6/2001:db8::1/tcp/80"),
        (("fe80::1%eth0", 80, 0, 2), "/ip6/fe80::1/tcp/80"),
        (("::ffff:192.0.2.1", 80, 0, 0), "/ip4/192.0.2.1/tcp/80"),
        (("no address", 80), None),
        ("/run/app.sock", "/unix/run/app.sock"),
        (b"/run/app.sock", "/unix/run/app.sock"),
        ("", None),
        (b"", None),
        ("relative.sock", None),
        (b"\0abstract", None),
        (b"/\xff", None),
        ("/a\nb", None),
        (None, None),
        (("192.0.2.1",), None),
        (7, None),
    ],
)
def test_names_of_sockets(name: Any, expected: str | None) -> None:
    assert socket_multiaddr(name) == (None if expected is None else Multiaddr(expected))


def test_bound_addresses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.socket(socket.AF_UNIX) as other:
        port = one.getsockname()[1]
        assert bound_addresses([one, other]) == [Multiaddr(f"/ip4/127.0.0.1/tcp/{port}")]
