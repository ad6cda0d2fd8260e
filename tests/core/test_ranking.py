"""anyp2p_core.ranking"""

import pytest
from hypothesis import given, settings, strategies as st

from anyp2p_core import Multiaddr
from anyp2p_core.ranking import rank, unusable

FOUR, SIX, NEAR = "/ip4/1.2.3.4", "/ip6/2600::1", "/ip4/10.0.0.1"
PEER = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
QUIC = "/quic-v1"


def ranked(*texts, **options):
    return [(delay, str(address)) for delay, address in rank(map(Multiaddr, texts), **options)]


def order(*texts):
    return [text for _, text in ranked(*texts)]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], []),
        ([f"{FOUR}/tcp/1"], [(0.0, f"{FOUR}/tcp/1")]),
        ([f"{SIX}/tcp/1"], [(0.0, f"{SIX}/tcp/1")]),
        (  # one family: the rest at once, lower ports first
            [f"{FOUR}/tcp/{port}" for port in (9, 7, 8)],
            [(0.0, f"{FOUR}/tcp/7"), (0.25, f"{FOUR}/tcp/8"), (0.25, f"{FOUR}/tcp/9")],
        ),
        (
            [f"{SIX}/tcp/{port}" for port in (9, 7, 8)],
            [(0.0, f"{SIX}/tcp/7"), (0.25, f"{SIX}/tcp/8"), (0.25, f"{SIX}/tcp/9")],
        ),
        (  # the staircase
            [f"{host}/tcp/{port}" for host in (FOUR, SIX) for port in (7, 8)],
            [
                (0.0, f"{SIX}/tcp/7"),
                (0.25, f"{FOUR}/tcp/7"),
                (0.5, f"{SIX}/tcp/8"),
                (0.5, f"{FOUR}/tcp/8"),
            ],
        ),
        (
            [f"{FOUR}/tcp/8", f"{SIX}/tcp/7"],
            [(0.0, f"{SIX}/tcp/7"), (0.25, f"{FOUR}/tcp/8")],
        ),
        (  # QUIC before TCP
            [f"{FOUR}/tcp/1", f"{FOUR}/udp/1{QUIC}"],
            [(0.0, f"{FOUR}/udp/1{QUIC}"), (0.25, f"{FOUR}/tcp/1")],
        ),
        (
            [
                f"{host}{rest}"
                for host in (FOUR, SIX)
                for rest in ("/tcp/1", f"/udp/1{QUIC}", "/tcp/2", f"/udp/2{QUIC}")
            ],
            [
                (0.0, f"{SIX}/udp/1{QUIC}"),
                (0.25, f"{FOUR}/udp/1{QUIC}"),
                (0.5, f"{SIX}/udp/2{QUIC}"),
                (0.5, f"{FOUR}/udp/2{QUIC}"),
                (0.75, f"{SIX}/tcp/1"),
                (1.0, f"{FOUR}/tcp/1"),
                (1.25, f"{SIX}/tcp/2"),
                (1.25, f"{FOUR}/tcp/2"),
            ],
        ),
        (  # WebSocket after TCP, and others a second later
            [
                f"{FOUR}/udp/9/webrtc-direct",
                f"{FOUR}/tcp/443/tls/ws",
                f"{FOUR}/tcp/80/ws",
                f"{FOUR}/tcp/4001",
                f"{SIX}/udp/9/webrtc-direct",
            ],
            [
                (0.0, f"{FOUR}/tcp/4001"),
                (0.25, f"{FOUR}/tcp/80/ws"),
                (0.5, f"{FOUR}/tcp/443/tls/ws"),
                (1.5, f"{SIX}/udp/9/webrtc-direct"),
                (1.5, f"{FOUR}/udp/9/webrtc-direct"),
            ],
        ),
        ([f"{FOUR}/udp/9/webrtc-direct"], [(0.0, f"{FOUR}/udp/9/webrtc-direct")]),
        (  # private addresses beside public ones, with their own steps
            [
                f"{FOUR}/tcp/1",
                f"{FOUR}/udp/1{QUIC}",
                f"{NEAR}/tcp/1",
                f"{NEAR}/udp/1{QUIC}",
                f"{NEAR}/udp/1/webrtc-direct",
            ],
            [
                (0.0, f"{NEAR}/udp/1{QUIC}"),
                (0.0, f"{FOUR}/udp/1{QUIC}"),
                (0.03, f"{NEAR}/tcp/1"),
                (0.13, f"{NEAR}/udp/1/webrtc-direct"),
                (0.25, f"{FOUR}/tcp/1"),
            ],
        ),
        (  # relays wait for direct public addresses
            [f"{FOUR}/tcp/5/p2p/{PEER}/p2p-circuit", f"{FOUR}/tcp/1"],
            [(0.0, f"{FOUR}/tcp/1"), (0.5, f"{FOUR}/tcp/5/p2p/{PEER}/p2p-circuit")],
        ),
        (
            [
                f"{FOUR}/tcp/5/p2p/{PEER}/p2p-circuit",
                f"{NEAR}/tcp/1",
                f"{FOUR}/udp/5{QUIC}/p2p/{PEER}/p2p-circuit",
            ],
            [
                (0.0, f"{NEAR}/tcp/1"),
                (0.0, f"{FOUR}/udp/5{QUIC}/p2p/{PEER}/p2p-circuit"),
                (0.25, f"{FOUR}/tcp/5/p2p/{PEER}/p2p-circuit"),
            ],
        ),
    ],
)
def test_order_and_delays(texts, expected):
    assert ranked(*texts) == [(pytest.approx(delay), text) for delay, text in expected]


def test_websocket_is_left_out_where_bare_tcp_is():
    assert order(f"{FOUR}/tcp/1/ws", f"{FOUR}/tcp/1", f"{FOUR}/tcp/2/wss") == [
        f"{FOUR}/tcp/1",
        f"{FOUR}/tcp/2/wss",
    ]
    others = [f"{FOUR}/tcp/1/ws", f"{SIX}/tcp/1", f"{FOUR}/udp/1{QUIC}", f"{NEAR}/tcp/1"]
    assert sorted(order(*others)) == sorted(others)
    zones = ["/ip6zone/a/ip6/fe80::1/tcp/1/ws", "/ip6zone/b/ip6/fe80::1/tcp/1"]
    assert sorted(order(*zones)) == zones
    relayed = [f"{FOUR}/tcp/1/p2p/{PEER}/p2p-circuit", f"{FOUR}/tcp/1/ws"]
    assert sorted(order(*relayed)) == sorted(relayed)


def test_webtransport_is_left_out_where_quic_is():
    web = f"{FOUR}/udp/1{QUIC}/webtransport"
    assert order(web, f"{FOUR}/udp/1{QUIC}") == [f"{FOUR}/udp/1{QUIC}"]
    assert order(web, f"{FOUR}/udp/2{QUIC}", f"{SIX}/udp/9{QUIC}") == [
        f"{SIX}/udp/9{QUIC}",
        f"{FOUR}/udp/2{QUIC}",
        web,
    ]


def test_others_come_all_at_once():
    texts = [f"{host}/udp/{port}/webrtc-direct" for host in (SIX, FOUR) for port in (1, 2)]
    assert ranked(*texts[::-1]) == [(0.0, text) for text in texts]


def test_this_machine_comes_first():
    texts = [f"{NEAR}/tcp/1", "/ip4/127.0.0.1/tcp/9", "/memory/7", "/ip6/::1/tcp/9", "/unix/run/a"]
    assert set(order(*texts)[:2]) == {"/memory/7", "/unix/run/a"}
    assert order(*texts)[2:] == ["/ip6/::1/tcp/9", "/ip4/127.0.0.1/tcp/9", f"{NEAR}/tcp/1"]
    assert ranked("/ip4/127.0.0.1/tcp/2", f"{NEAR}/tcp/1")[1][0] == pytest.approx(0.03)


def test_names_are_public():
    texts = ["/dns4/a.example/tcp/1", "/dns6/a.example/tcp/1", "/dns/b.example/tcp/1"]
    assert ranked(*texts) == [
        (0.0, "/dns6/a.example/tcp/1"),
        (0.25, "/dns4/a.example/tcp/1"),
        (0.5, "/dns/b.example/tcp/1"),
    ]
    assert order(f"/p2p/{PEER}", "/dnsaddr/a.example") == [f"/p2p/{PEER}", "/dnsaddr/a.example"]


def test_the_step_can_be_changed():
    assert ranked(f"{FOUR}/tcp/1", f"{FOUR}/tcp/2", stagger=0.0)[1][0] == 0.0
    assert ranked(f"{FOUR}/tcp/1", f"{FOUR}/tcp/2", stagger=1.0)[1][0] == 1.0


HOSTS = (FOUR, SIX, NEAR, "/ip6/fd00::1", "/dns/a.example", "/ip4/127.0.0.1")
TAILS = ("/tcp/{}", "/udp/{}/quic-v1", "/tcp/{}/ws", f"/tcp/{{}}/p2p/{PEER}/p2p-circuit")


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(HOSTS), st.sampled_from(TAILS), st.integers(1, 5)), max_size=24
    )
)
def test_every_address_once_and_never_before_its_betters(items):
    texts = [host + tail.format(port) for host, tail, port in items]
    found = ranked(*texts)
    delays = [delay for delay, _ in found]
    assert delays == sorted(delays) and (not delays or delays[0] == 0.0)
    result = [text for _, text in found]
    assert len(result) == len(set(result))
    dropped = {text for text in texts if text.endswith("/ws") and text[:-3] in texts}
    assert set(result) == set(texts) - dropped
    for host in HOSTS:  # lower ports first
        for tail in TAILS:
            ports = [port for port in range(1, 6) if host + tail.format(port) in result]
            places = [result.index(host + tail.format(port)) for port in ports]
            assert places == sorted(places)
    again = ranked(*texts[::-1])
    assert sorted(order(*texts[::-1])) == sorted(result)
    assert [delay for delay, _ in again] == delays


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("/ip4/1.2.3.4/tcp/1", None),
        ("/ip4/127.0.0.1/tcp/1", None),
        ("/ip4/0.0.0.0/tcp/1", "no host"),
        ("/ip4/0.1.2.3/tcp/1", "no host"),
        ("/ip4/224.0.0.1/udp/1/quic-v1", "multicast"),
        ("/ip4/255.255.255.255/tcp/1", "multicast"),
        ("/ip6/::/tcp/1", "no host"),
        ("/ip6/::1/tcp/1", None),
        ("/ip6/ff02::1/tcp/1", "multicast"),
        ("/ip6/fe80::1/tcp/1", "zone"),
        ("/ip6/febf::1/tcp/1", "zone"),
        ("/ip6/fec0::1/tcp/1", None),
        ("/ip6zone/eth0/ip6/fe80::1/tcp/1", None),
        ("/ip4/1.2.3.4/tcp/0", "no port"),
        ("/ip4/1.2.3.4/udp/0/quic-v1", "no port"),
        ("/dns/a.example/tcp/0/ws", "no port"),
        ("/dns/a.example/tcp/1", None),
        ("/dnsaddr/a.example", None),
        ("/memory/1", None),
    ],
)
def test_what_leads_nowhere(text, reason):
    found = unusable(Multiaddr(text))
    assert found is None if reason is None else reason in found
