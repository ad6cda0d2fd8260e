"""Addresses as the things that they ask for."""

import pytest

from anyp2p_core import LocalError, Multiaddr
from anyp2p_core.route import MEMORY, TCP, UDP, UNIX, Route, route, same_socket, with_layers

PEER = "12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo"

# What is asked for, and what stands in an HTTP Host header there.
TABLE = [
    ("/ip4/192.0.2.1/tcp/80", Route(TCP, "ip4", "192.0.2.1", 80), "192.0.2.1"),
    ("/ip6/2001:db8::1/tcp/1", Route(TCP, "ip6", "2001:db8::1", 1), "[2001:db8::1]:1"),
    ("/ip6zone/eth0/ip6/fe80::1/tcp/2", Route(TCP, "ip6", "fe80::1%eth0", 2), "[fe80::1]:2"),
    ("/dns/example.org/tcp/3", Route(TCP, "dns", "example.org", 3), "example.org:3"),
    ("/dns4/example.org/tcp/3", Route(TCP, "dns4", "example.org", 3), "example.org:3"),
    ("/dns6/example.org/tcp/3", Route(TCP, "dns6", "example.org", 3), "example.org:3"),
    ("/ip4/192.0.2.1/tcp/80/ws", Route(TCP, "ip4", "192.0.2.1", 80, layers=("ws",)), "192.0.2.1"),
    (
        "/ip4/192.0.2.1/tcp/443/ws",
        Route(TCP, "ip4", "192.0.2.1", 443, layers=("ws",)),
        "192.0.2.1:443",
    ),
    (
        "/dns/example.org/tcp/443/wss",
        Route(TCP, "dns", "example.org", 443, layers=("tls", "ws"), sni="example.org"),
        "example.org",
    ),
    (
        "/dns/example.org/tcp/80/tls/ws",
        Route(TCP, "dns", "example.org", 80, layers=("tls", "ws"), sni="example.org"),
        "example.org:80",
    ),
    (
        "/ip4/192.0.2.1/tcp/443/tls/sni/example.org/ws",
        Route(TCP, "ip4", "192.0.2.1", 443, layers=("tls", "ws"), sni="example.org"),
        "example.org",
    ),
    (
        "/ip6zone/eth0/ip6/fe80::1/tcp/443/wss",
        Route(TCP, "ip6", "fe80::1%eth0", 443, layers=("tls", "ws"), sni="fe80::1"),
        "[fe80::1]",
    ),
    (
        "/dns/example.org/tcp/443/tls/ws/http-path/a%2Fb%20c",
        Route(
            TCP, "dns", "example.org", 443, layers=("tls", "ws"), sni="example.org",
            http_path="/a/b%20c",
        ),
        "example.org",
    ),
    (
        "/dns/example.org/tcp/80/ws/http-path/%2Fa",
        Route(TCP, "dns", "example.org", 80, layers=("ws",), http_path="/a"),
        "example.org",
    ),
    (
        "/ip4/192.0.2.1/udp/4001/quic-v1",
        Route(UDP, "ip4", "192.0.2.1", 4001, quic=True),
        "192.0.2.1:4001",
    ),
    (
        "/ip6zone/eth0/ip6/fe80::1/udp/4001/quic-v1",
        Route(UDP, "ip6", "fe80::1%eth0", 4001, quic=True),
        "[fe80::1]:4001",
    ),
    ("/ip4/192.0.2.1/udp/4001", Route(UDP, "ip4", "192.0.2.1", 4001), None),
    ("/unix/run/app.sock", Route(UNIX, path="/run/app.sock"), None),
    ("/unix/run/app.sock/ws", Route(UNIX, path="/run/app.sock/ws"), None),
    ("/memory/7", Route(MEMORY, port=7), None),
    ("/memory/18446744073709551615", Route(MEMORY, port=2**64 - 1), None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected", "authority"), TABLE)
def test_table(text, expected, authority):
    assert route(Multiaddr(text)) == expected
    assert route(Multiaddr(f"{text}/p2p/{PEER}")) == expected  # who is there makes no difference
    if authority is not None:
        assert route(Multiaddr(text)).authority == authority


@pytest.mark.parametrize(
    "text",
    [
        f"/p2p/{PEER}",
        "/ip4/192.0.2.1",
        "/tcp/80",
        "/tcp/80/ip4/192.0.2.1",
        "/ip4/192.0.2.1/udp/4001/quic",
        "/ip4/192.0.2.1/udp/4001/quic-v1/webtransport",
        "/ip4/192.0.2.1/udp/4001/webrtc-direct",
        "/ip4/192.0.2.1/sctp/80",
        "/ip6zone/eth0",
        "/ip6zone/eth0/tcp/1",
        "/ip6zone/eth0/ip4/192.0.2.1/tcp/80",
        "/ip6zone/eth0/dns/example.org/tcp/80",
        "/ip4/192.0.2.1/tcp/80/http",
        "/ip4/192.0.2.1/tcp/80/tls",
        "/ip4/192.0.2.1/tcp/80/tls/sni/example.org",
        "/ip4/192.0.2.1/tcp/80/sni/example.org/ws",
        "/ip4/192.0.2.1/tcp/80/tls/sni/example.org/wss",
        "/ip4/192.0.2.1/tcp/80/ws/tls",
        "/ip4/192.0.2.1/tcp/80/ws/ws",
        "/ip4/192.0.2.1/tcp/80/wss/ws",
        "/ip4/192.0.2.1/tcp/80/tls/http/ws",
        "/ip4/192.0.2.1/tcp/80/http-path/a",
        "/ip4/192.0.2.1/tcp/80/http-path/%2F",
        "/ip4/192.0.2.1/tcp/80/tls/http-path/a",
        "/ip4/192.0.2.1/tcp/80/ws/http-path/a/http-path/b",
        "/ip4/192.0.2.1/tcp/80/http-path/a/ws",
        "/memory/7/ws",
        "/memory/7/tcp/1",
        "/dnsaddr/example.org",
        "/dnsaddr/example.org/tcp/80",
        f"/ip4/192.0.2.1/tcp/80/p2p/{PEER}/p2p-circuit",
        f"/ip4/192.0.2.1/tcp/80/p2p/{PEER}/ws",
        "/onion3/vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd:1234",
    ],
)
def test_what_there_is_no_transport_for(text):
    with pytest.raises(LocalError, match="there is no transport for it") as caught:
        route(Multiaddr(text))
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/ip4/192.0.2.1/tcp/80", "/ip4/192.0.2.1/tcp/80"),
        ("/ip4/192.0.2.1/tcp/80/ws", "/ip4/192.0.2.1/tcp/80"),
        ("/ip4/192.0.2.1/tcp/80/tls/sni/example.org/ws", "/ip4/192.0.2.1/tcp/80"),
        ("/dns/example.org/tcp/80/ws/http-path/tcp", "/dns/example.org/tcp/80"),
        ("/dns/tcp/tcp/80/wss", "/dns/tcp/tcp/80"),
        ("/ip6zone/tcp/ip6/fe80::1/tcp/80/wss", "/ip6zone/tcp/ip6/fe80::1/tcp/80"),
        ("/ip4/192.0.2.1/udp/80/quic-v1", "/ip4/192.0.2.1/udp/80"),
        ("/unix/run/app.sock", "/unix/run/app.sock"),
        ("/memory/7", "/memory/7"),
    ],
)
def test_same_socket(text, expected):
    assert same_socket(Multiaddr(text)) == Multiaddr(expected)
    assert same_socket(Multiaddr(f"{text}/p2p/{PEER}")) == Multiaddr(expected)


def test_same_socket_of_what_has_none():
    with pytest.raises(LocalError):
        same_socket(Multiaddr("/ip4/192.0.2.1/tcp/80/http"))


def test_with_layers():
    plain = Multiaddr("/ip4/192.0.2.1/tcp/80")
    assert with_layers(plain, ()) is plain
    assert str(with_layers(plain, ("ws",))) == f"{plain}/ws"
    assert str(with_layers(plain, ("tls", "ws"))) == f"{plain}/tls/ws"
    for layers in ((), ("ws",), ("tls", "ws")):
        assert route(with_layers(plain, layers)).layers == layers
        assert same_socket(with_layers(plain, layers)) == plain
