import copy
import pickle

import pytest
import vectors
from hypothesis import given, settings, strategies as st

from anyp2p_core import multibase, multihash, varint
from anyp2p_core.errors import DecodeError, RemoteError
from anyp2p_core.multiaddr import MAX_BYTES, MAX_COMPONENTS, MAX_TEXT, Component, Multiaddr

VECTORS = vectors.load("multiaddr")
EXACT = VECTORS["string_to_hex"] + VECTORS["rust_string_to_hex"]
INVALID = VECTORS["invalid"] + VECTORS["rust_invalid"]
PEER = "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq"
PEER_BYTES = multibase.b58decode(PEER)
HASHED = "QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC"
CERTHASH = "uEiDDq4_xNyDorZBH3TlGazyJdOWSwvo4PUo5YHFMrvDE8g"
DESTINATION = bytes(range(256)) + bytes(130)  # the shortest I2P destination
I2P_TEXT = multibase.encode("M", DESTINATION)[1:].translate({43: "-", 47: "~"})
CIRCUIT = b"\xa2\x02"

# Canonical text and bytes, one row at least per protocol.
TABLE: list[tuple[str, bytes]] = [
    ("/ip4/192.0.2.1/tcp/4001", b"\x04\xc0\x00\x02\x01\x06\x0f\xa1"),
    ("/ip4/0.0.0.0", b"\x04\0\0\0\0"),
    ("/ip6/::", b"\x29" + bytes(16)),
    ("/ip6/::ffff:1.2.3.4", b"\x29" + bytes(10) + b"\xff\xff\1\2\3\4"),
    ("/ip6/2001:db8::1:0:0:1", b"\x29\x20\x01\x0d\xb8\0\0\0\0\0\1\0\0\0\0\0\1"),
    ("/ip6zone/eth0/ip6/fe80::1", b"\x2a\x04eth0\x29\xfe\x80" + bytes(13) + b"\1"),
    ("/ip4/10.0.0.0/ipcidr/8", b"\x04\x0a\0\0\0\x2b\x08"),
    ("/ip6/::/ipcidr/255", b"\x29" + bytes(16) + b"\x2b\xff"),
    ("/dns/example.com", b"\x35\x0bexample.com"),
    ("/dns4/b\u00fccher.example", b"\x36\x0fb\xc3\xbccher.example"),
    ("/dns6/a", b"\x37\x01a"),
    ("/dnsaddr/bootstrap.libp2p.io", b"\x38\x13bootstrap.libp2p.io"),
    ("/dccp/1", b"\x21\0\1"),
    ("/sctp/65535", b"\x84\x01\xff\xff"),
    ("/udp/0/udt", b"\x91\x02\0\0\xad\x02"),
    ("/udp/1/utp", b"\x91\x02\0\1\xae\x02"),
    ("/udp/1/quic", b"\x91\x02\0\1\xcc\x03"),
    ("/udp/1/quic-v1/webtransport", b"\x91\x02\0\1\xcd\x03\xd1\x03"),
    ("/webrtc/webrtc-direct", b"\x99\x02\x98\x02"),
    ("/p2p-webrtc-star/p2p-webrtc-direct", b"\x93\x02\x94\x02"),
    ("/p2p-stardust/p2p-websocket-star", b"\x95\x02\xdf\x03"),
    ("/tcp/443/tls/sni/example.com/ws", b"\x06\x01\xbb\xc0\x03\xc1\x03\x0bexample.com\xdd\x03"),
    ("/tcp/1/wss", b"\x06\0\1\xde\x03"),
    ("/tcp/1/noise", b"\x06\0\1\xc6\x03"),
    ("/tcp/1/plaintextv2", b"\x06\0\1\xe1\xd8\xc1\x03"),
    ("/http/https", b"\xe0\x03\xbb\x03"),
    ("/http-path/a%2Fb%20c%FF", b"\xe1\x03\x06a/b c\xff"),
    ("/http-path/-._~%25%2B%3A", b"\xe1\x03\x07-._~%+:"),
    ("/unix/a b/c", b"\x90\x03\x06/a b/c"),
    ("/unix//a", b"\x90\x03\x03//a"),
    (f"/p2p/{PEER}", b"\xa5\x03\x26" + PEER_BYTES),
    (f"/p2p/{HASHED}/p2p-circuit", b"\xa5\x03\x22" + multibase.b58decode(HASHED) + CIRCUIT),
    ("/p2p/15S", b"\xa5\x03\x03\x00\x01\x01"),  # the shortest key that could be
    (f"/certhash/{CERTHASH}", b"\xd2\x03\x22" + multibase.decode(CERTHASH)),
    ("/onion/aaimaq4ygg2iegci:80", bytes.fromhex("bc030010c0439831b48218480050")),
    ("/onion3/" + "a" * 56 + ":65535", b"\xbd\x03" + bytes(35) + b"\xff\xff"),
    ("/garlic32/" + "a" * 52, b"\xbf\x03\x20" + bytes(32)),
    ("/garlic32/" + "a" * 56, b"\xbf\x03\x23" + bytes(35)),
    ("/garlic64/" + I2P_TEXT, b"\xbe\x03\x82\x03" + DESTINATION),
    ("/memory/18446744073709551615", b"\x89\x06" + b"\xff" * 8),
    ("/memory/0", b"\x89\x06" + bytes(8)),
]

# Other spellings of the same address.
ALIASES: list[tuple[str, str]] = [
    (f"/ipfs/{HASHED}", f"/p2p/{HASHED}"),
    ("/ip4/1.2.3.4/tcp/80/", "/ip4/1.2.3.4/tcp/80"),
    ("/unix/a/", "/unix/a"),
    ("/tls/", "/tls"),
    ("/ip6/2001:DB8:0::0001", "/ip6/2001:db8::1"),
    ("/ip6/::ffff:102:304", "/ip6/::ffff:1.2.3.4"),
    ("/tcp/0080", "/tcp/80"),
    ("/onion/AAIMAQ4YGG2IEGCI:80", "/onion/aaimaq4ygg2iegci:80"),
    ("/garlic32/" + "A" * 52, "/garlic32/" + "a" * 52),
    ("/http-path/a+b", "/http-path/a%2Bb"),
    ("/http-path/%61%2f\u00e9", "/http-path/a%2F%C3%A9"),
    ("/certhash/" + multibase.encode("z", multibase.decode(CERTHASH)), f"/certhash/{CERTHASH}"),
    *(
        (f"/p2p/{multibase.encode(base, bytes((1, 0x72)) + PEER_BYTES)}", f"/p2p/{PEER}")
        for base in "bkzfu"
    ),
]

REFUSED_TEXT = [
    "",
    "/",
    "//",
    "ip4/1.2.3.4",
    " /ip4/1.2.3.4",
    "/ip4/1.2.3.4//tcp/1",
    "/ip4/1.2.3.4/tcp/1//",
    "/ip4//tcp/1",
    "/IP4/1.2.3.4",
    "/ip4/1.2.3.04/tcp/-1",
    "/ip4/01.2.3.4",
    "/ip4/1.2.3",
    "/ip4/1.2.3.4.5",
    "/ip4/1.2.3.4 ",
    "/ip4/\u0661.2.3.4",
    "/ip6/1.2.3.4",
    "/ip6/fe80::1%eth0",
    "/ip6/:::",
    "/ip6zone/",
    "/ip6zone/a\n",
    "/ip4/1.2.3.4/ipcidr/256",
    "/ip4/1.2.3.4/ipcidr/-1",
    "/tcp/+1",
    "/tcp/ 1",
    "/tcp/1_0",
    "/tcp/\u0661",
    "/tcp/0x50",
    "/tcp/65536",
    "/tcp/" + "0" * 20 + "1",
    "/tcp/" + "1" * 2000,
    "/dns",
    "/dns/",
    "/dns//tcp/1",
    "/dns4/a\x1b[2J",
    "/dns4/a\x00",
    "/dns6/a\u202eb",
    "/dnsaddr/\ud800",
    "/sni/\x7f",
    "/unix",
    "/unix/",
    "/unix//",
    "/unix/a//",
    "/unix/a\x00",
    "/p2p",
    "/p2p/",
    "/p2p/1",
    "/p2p/11",  # an inlined key of no bytes
    "/p2p/Qm",
    "/p2p/" + HASHED[:-1],
    "/p2p/" + HASHED + "1",
    "/p2p/" + HASHED[:-1] + "0",
    "/p2p/x",
    "/p2p/" + multibase.encode("b", b"\x01\x70" + PEER_BYTES),  # not the codec of keys
    "/p2p/" + multibase.encode("b", PEER_BYTES),
    "/p2p/" + multibase.encode("b", b"\x01\x72" + multihash.encode(0x13, bytes(64))),
    "/p2p/" + multibase.encode("b", b"\x01\x72\x12\x10" + bytes(16)),
    "/p2p/" + multibase.b58encode(b"\x00\x2b" + bytes(43)),
    "/certhash/",
    "/certhash/u",
    "/certhash/" + CERTHASH[1:],
    "/certhash/" + CERTHASH[:-1],
    "/certhash/" + CERTHASH + "AAAA",
    "/onion/aaimaq4ygg2iegci",
    "/onion/aaimaq4ygg2iegci:",
    "/onion/aaimaq4ygg2iegci:0",
    "/onion/aaimaq4ygg2iegci:65536",
    "/onion/aaimaq4ygg2iegci:80:80",
    "/onion/aaimaq4ygg2iegc:80",
    "/onion/aaimaq4ygg2iegc1:80",
    "/onion/aaimaq4ygg2ieg\u00df:80",  # its upper case is SS
    "/onion3/aaimaq4ygg2iegci:80",
    "/garlic32/" + "a" * 50,
    "/garlic32/" + "a" * 51,
    "/garlic32/" + "a" * 54,
    "/garlic32/" + "a" * 52 + "====",
    "/garlic64/" + I2P_TEXT.replace("-", "+"),
    "/garlic64/" + I2P_TEXT[:-1],
    "/garlic64/" + I2P_TEXT[:-4],
    "/garlic64/" + I2P_TEXT + "!",
    "/http-path",
    "/http-path/",
    "/http-path/a/b",
    "/http-path/%",
    "/http-path/a%2",
    "/http-path/%2g",
    "/http-path/%+1",
    "/http-path/% 1",
    "/http-path/a%  ",
    "/http-path/a%\t\n",
    "/http-path/%\u0661\u0661",
    "/http-path/\ud800",
    "/memory",
    "/memory/18446744073709551616",
    "/memory/-1",
    "/tls/1",
    "/p2p-circuit/1",
    "/thread/1",
    "/nothing",
]

REFUSED_BYTES = [
    b"",
    b"\x00",
    b"\x05",  # no such protocol
    b"\x96\x03",  # thread: nobody's transport
    b"\x84\x00\x00\x01",  # tcp in more bytes than needed: refused like everywhere
    b"\x86\x00\x00\x01",
    b"\xff" * 9,
    b"\xff" * 30,
    b"\x80",
    b"\x04\1\2\3",
    b"\x06\0",
    b"\x06",
    b"\x29" + bytes(15),
    b"\x2b",
    b"\x35",
    b"\x35\x00",  # an empty name
    b"\x35\x81\x00a",
    b"\x35\x02a",
    b"\x35\xff\xff\xff\xff\xff\xff\xff\xff\x7fa",
    b"\x35" + b"\xff" * 10 + b"a",
    b"\x35\x03a/b",
    b"\x35\x01\xff",
    b"\x35\x02a\n",
    b"\x36\x02\xc2\x85",
    b"\x2a\x00",
    b"\x2a\x01/",
    b"\xc1\x03\x00",
    b"\xc1\x03\x01\x00",
    b"\x90\x03\x00",
    b"\x90\x03\x01/",
    b"\x90\x03\x01a",
    b"\x90\x03\x02a/",
    b"\x90\x03\x03/a/",
    b"\x90\x03\x03/a\n",
    b"\x90\x03\x02/\xff",
    b"\x90\x03\x02/a\x06\0\1",  # would read back as the path /a/tcp/1
    b"\xa5\x03\x00",
    b"\xa5\x03\x01\x00",
    b"\xa5\x03\x02\x00\x00",
    b"\xa5\x03\x03\x00\x02\x01",
    b"\xa5\x03\x04\x00\x01\x01\x01",
    b"\xa5\x03\x2d\x00\x2b" + bytes(43),
    b"\xa5\x03\x21\x12\x1f" + bytes(31),
    b"\xa5\x03\x22\x12\x1f" + bytes(32),
    b"\xa5\x03\x22\x13\x20" + bytes(32),
    b"\xa5\x03\x22\x12\x20" + bytes(31),
    b"\xd2\x03\x00",
    b"\xd2\x03\x02\x12\x20",
    b"\xd2\x03\x03\x12\x81\x00",
    b"\xbc\x03" + bytes(12),
    b"\xbc\x03" + b"\1" * 11,
    b"\xbd\x03" + bytes(37),
    b"\xbe\x03\x81\x03" + bytes(385),
    b"\xbf\x03\x1f" + bytes(31),
    b"\xbf\x03\x21" + bytes(33),
    b"\xbf\x03\x22" + bytes(34),
    b"\xe1\x03\x00",
    b"\x89\x06" + bytes(7),
]


@pytest.mark.parametrize(("text", "data"), TABLE)
def test_table(text: str, data: bytes) -> None:
    address = Multiaddr(text)
    assert bytes(address) == data
    assert str(address) == text
    for form in (data, bytearray(data), memoryview(data)):
        again = Multiaddr.from_bytes(form)
        assert type(bytes(again)) is bytes
        assert str(again) == text
        assert again == address and hash(again) == hash(address)
        assert again.components == address.components
        assert again.names == tuple(component.name for component in address.components)


@pytest.mark.parametrize(("text", "data"), TABLE)
def test_every_cut_is_refused_or_an_address(text: str, data: bytes) -> None:
    for cut in range(len(data)):
        try:
            address = Multiaddr.from_bytes(data[:cut])
        except DecodeError:
            continue
        # A cut between components, or a shorter value of the last one.
        assert bytes(address) == data[:cut]
        assert text.startswith(str(address))


@pytest.mark.parametrize(("text", "data"), TABLE)
def test_trailing_data(text: str, data: bytes) -> None:
    for garbage in (b"\x00", b"\x80", b"\x06", b"\x06\0"):
        with pytest.raises(DecodeError):
            Multiaddr.from_bytes(data + garbage)
    if not text.startswith("/unix"):
        assert str(Multiaddr.from_bytes(data + b"\x06\0\1")) == text + "/tcp/1"


@pytest.mark.parametrize(("text", "canonical"), ALIASES)
def test_aliases(text: str, canonical: str) -> None:
    assert str(Multiaddr(text)) == canonical
    assert Multiaddr(text) == Multiaddr(canonical)


@pytest.mark.parametrize("text", REFUSED_TEXT)
def test_text_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        Multiaddr(text)


@pytest.mark.parametrize("data", REFUSED_BYTES)
def test_bytes_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        Multiaddr.from_bytes(data)
    with pytest.raises(DecodeError):
        Multiaddr.from_bytes(b"\x04\1\2\3\4" + data if data else data)


@pytest.mark.parametrize("text", VECTORS["valid"])
def test_vectors_valid(text: str) -> None:
    address = Multiaddr(text)
    assert Multiaddr(str(address)) == address
    again = Multiaddr.from_bytes(bytes(address))
    assert again == address and str(again) == str(address)


@pytest.mark.parametrize("row", EXACT, ids=lambda row: row["str"][:60])
def test_vectors_exact(row: dict[str, str]) -> None:
    data = bytes.fromhex(row["hex"])
    assert bytes(Multiaddr(row["str"])) == data
    assert str(Multiaddr.from_bytes(data)) == row["str"]


@pytest.mark.parametrize("text", INVALID)
def test_vectors_invalid(text: str) -> None:
    with pytest.raises(DecodeError):
        Multiaddr(text)


def test_the_table_of_protocols() -> None:
    # Not part of libp2p: Textile threads, Secure Scuttlebutt, Yggdrasil, SCION.
    foreign = {"thread", "shs", "silverpine", "scion"}
    known = {c.name: c.code for text, _ in TABLE for c in Multiaddr(text).components}
    for row in vectors.load("multicodec_multiaddr_table")["multiaddr"]:
        name, code = row["name"], int(row["code"], 16)
        if name in foreign:
            with pytest.raises(DecodeError, match="unknown protocol"):
                Multiaddr(f"/{name}")
            with pytest.raises(DecodeError, match="unknown protocol"):
                Multiaddr.from_bytes(varint.encode(code))
        else:
            assert known.pop(name) == code
    # The one that another table lists.
    assert known == {"memory": 0x309}


# The object.


def test_components() -> None:
    address = Multiaddr(f"/ip4/1.2.3.4/tcp/80/tls/p2p/{PEER}")
    assert address.components == (
        Component("ip4", 4, "1.2.3.4", b"\1\2\3\4"),
        Component("tcp", 6, "80", b"\0\x50"),
        Component("tls", 448, "", b""),
        Component("p2p", 421, PEER, PEER_BYTES),
    )
    assert address.components is address.components
    assert address.names == ("ip4", "tcp", "tls", "p2p")
    assert Multiaddr("/unix/a/b").components == (Component("unix", 400, "/a/b", b"/a/b"),)


def test_get() -> None:
    address = Multiaddr(f"/ip4/1.2.3.4/tcp/80/p2p/{PEER}/p2p-circuit/p2p/{HASHED}")
    assert address.get("tcp") == "80"
    assert address.get("p2p") == PEER  # the first one
    assert address.get("p2p-circuit") == ""
    assert address.get("udp") is None
    assert address.get("nothing") is None


def test_encapsulate() -> None:
    base = Multiaddr("/ip4/1.2.3.4")
    for full in (
        base.encapsulate("/tcp/80/"),
        base.encapsulate(Multiaddr("/tcp/80")),
        base / "/tcp/80",
        base / Multiaddr("/tcp/80"),
    ):
        assert str(full) == "/ip4/1.2.3.4/tcp/80"
    assert str(base) == "/ip4/1.2.3.4"
    with pytest.raises(DecodeError):
        base / "tcp/80"
    assert str(Multiaddr("/unix/a") / "/tcp/80") == "/unix/a/tcp/80"  # a path takes all
    with pytest.raises(DecodeError, match="components"):
        Multiaddr("/tls" * MAX_COMPONENTS) / "/tls"


def test_encapsulate_in_a_path() -> None:
    path = Multiaddr("/unix/run/app.sock")
    full = path / f"/p2p/{PEER}"
    assert full == Multiaddr(f"/unix/run/app.sock/p2p/{PEER}") == path.encapsulate(f"/p2p/{PEER}")
    assert full.names == ("unix",)
    assert full.split_peer() == (path, Multiaddr(f"/p2p/{PEER}").components[0].raw)
    with pytest.raises(DecodeError, match="1024"):
        Multiaddr("/unix/" + "a" * 1000) / f"/p2p/{PEER}"


@pytest.mark.parametrize(
    ("address", "where", "named"),
    [
        ("/ip4/1.2.3.4/tcp/80", "/ip4/1.2.3.4/tcp/80", False),
        (f"/ip4/1.2.3.4/tcp/80/p2p/{PEER}", "/ip4/1.2.3.4/tcp/80", True),
        (f"/ip4/1.2.3.4/tcp/80/p2p/{PEER}/p2p-circuit", None, False),
        (f"/p2p/{PEER}", "", True),
        ("/unix/a", "/unix/a", False),
        (f"/unix/a/p2p/{PEER}", "/unix/a", True),
        (f"/unix/a/b.sock/p2p/{PEER}", "/unix/a/b.sock", True),
        (f"/unix/a/p2p/{PEER}/p2p/{PEER}", f"/unix/a/p2p/{PEER}", True),  # the last one
        (f"/unix/p2p/{PEER}", None, False),  # nothing would be left of the path
        ("/unix/a/p2p/b", None, False),  # a directory of that name
        ("/unix/a/p2p", None, False),
        (f"/unix/a/p2p/{PEER}/b", None, False),
        (f"/unix/a/p2p/{PEER[:-1]}", None, False),
        ("/unix/a/p2p/bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy", None, False),
    ],
)
def test_split_peer(address: str, where: str | None, named: bool) -> None:
    found, peer = Multiaddr(address).split_peer()
    assert str(found or "") == (address if where is None else where)
    assert peer == (Multiaddr(f"/p2p/{PEER}").components[0].raw if named else None)
    if named and found is not None:
        assert found / f"/p2p/{PEER}" == Multiaddr(address)


@pytest.mark.parametrize(
    ("address", "other", "result"),
    [
        ("/ip4/1.2.3.4/tcp/80", "/tcp/80", "/ip4/1.2.3.4"),
        ("/ip4/1.2.3.4/tcp/80/ws", "/tcp/80", "/ip4/1.2.3.4"),
        ("/ip4/1.2.3.4/tcp/80/ws", "/tcp/80/ws", "/ip4/1.2.3.4"),
        ("/ip4/1.2.3.4/tcp/80", "/tcp/81", "/ip4/1.2.3.4/tcp/80"),
        ("/ip4/1.2.3.4/tcp/80", "/udp/80", "/ip4/1.2.3.4/tcp/80"),
        ("/tls/ws/tls/ws", "/tls", "/tls/ws"),  # the last occurrence
        ("/tls/ws/tls/ws/noise", "/tls/ws", "/tls/ws"),
        ("/tls/tls/tls", "/tls/tls", "/tls"),
        ("/tls", "/tls/ws", "/tls"),
        ("/ip4/1.2.3.4", "/ip4/1.2.3.4", None),
        ("/tls/ws", "/tls", None),
        # Components are compared, not bytes: 6 6 6 is a port as well.
        ("/tcp/1542/tcp/1542", "/tcp/1542", "/tcp/1542"),
    ],
)
def test_decapsulate(address: str, other: str, result: str | None) -> None:
    for form in (other, Multiaddr(other)):
        rest = Multiaddr(address).decapsulate(form)
        if result is None:
            assert rest is None
        else:
            assert rest == Multiaddr(result)
            assert str(rest) == result
            assert rest is not None and rest.names == Multiaddr(result).names


def test_equality_and_order() -> None:
    one, same, other = Multiaddr("/tcp/1"), Multiaddr("/tcp/1/"), Multiaddr("/tcp/2")
    assert one == same
    assert one != other and one != "/tcp/1" and one != bytes(one)
    assert {one, same, other} == {one, other}
    assert one < other and one <= same and other > one and other >= one
    assert sorted([Multiaddr("/udp/1"), other, one, Multiaddr("/ip4/9.9.9.9")]) == [
        Multiaddr("/ip4/9.9.9.9"),
        one,
        other,
        Multiaddr("/udp/1"),
    ]
    with pytest.raises(TypeError):
        one < "/tcp/2"  # type: ignore[operator]  # noqa: B015
    assert repr(one) == "Multiaddr('/tcp/1')"


def test_copies() -> None:
    address = Multiaddr("/tcp/1/unix/a")
    for same in (copy.copy(address), copy.deepcopy(address), pickle.loads(pickle.dumps(address))):
        assert same == address and str(same) == str(address)
        assert same.decapsulate("/unix/a") == Multiaddr("/tcp/1")


# Properties.

PORTS = st.integers(0, 65535)
NAMES = st.text(
    st.characters(exclude_characters="/", exclude_categories=["C", "Z"]), min_size=1, max_size=10
)
COMPONENTS = st.one_of(
    st.ip_addresses(v=4).map(lambda ip: f"/ip4/{ip}"),
    st.ip_addresses(v=6).map(lambda ip: f"/ip6/{ip}"),
    st.builds("/{}/{}".format, st.sampled_from(["tcp", "udp", "sctp", "dccp"]), PORTS),
    st.builds("/{}/{}".format, st.sampled_from(["dns", "dns4", "dns6", "dnsaddr", "sni"]), NAMES),
    st.sampled_from(["/tls", "/ws", "/quic-v1", "/p2p-circuit", "/noise", "/plaintextv2"]),
    st.binary(min_size=1, max_size=42).map(
        lambda key: "/p2p/" + multibase.b58encode(multihash.encode(0, key))
    ),
    st.binary(max_size=40).map(
        lambda digest: "/certhash/" + multibase.encode("u", multihash.encode(0x12, digest))
    ),
    st.binary(min_size=1, max_size=20).map(
        lambda path: "/http-path/" + "".join(f"%{byte:02x}" for byte in path)
    ),
    st.integers(0, 2**64 - 1).map(lambda n: f"/memory/{n}"),
    st.integers(0, 255).map(lambda n: f"/ipcidr/{n}"),
    st.builds(
        lambda host, port: f"/onion/{multibase.encode('b', host)[1:]}:{port}",
        st.binary(min_size=10, max_size=10),
        st.integers(1, 65535),
    ),
)
ADDRESSES = st.lists(COMPONENTS, min_size=1, max_size=8).map("".join)
CODES = st.sampled_from(sorted({c.code for t, _ in TABLE for c in Multiaddr(t).components}))


@settings(deadline=None)
@given(ADDRESSES)
def test_round_trip(text: str) -> None:
    address = Multiaddr(text)
    assert Multiaddr.from_bytes(bytes(address)) == address
    assert Multiaddr(str(address)) == address


@settings(deadline=None)
@given(ADDRESSES, ADDRESSES)
def test_decapsulate_undoes_encapsulate(one: str, other: str) -> None:
    rest = (Multiaddr(one) / other).decapsulate(other)
    # An overlap, as in /tls/tls, may leave less.
    assert rest is not None and bytes(Multiaddr(one)).startswith(bytes(rest))


@settings(deadline=None, max_examples=500)
@given(
    st.binary(max_size=60)
    | st.lists(
        st.builds(
            lambda code, length, raw: varint.encode(code) + length + raw,
            CODES,
            st.integers(0, 40).map(varint.encode) | st.just(b""),
            st.binary(max_size=40),
        ),
        max_size=3,
    ).map(b"".join)
)
def test_garbage_raises_or_round_trips(data: bytes) -> None:
    try:
        address = Multiaddr.from_bytes(data)
    except RemoteError:
        return
    assert bytes(address) == data
    assert Multiaddr(str(address)) == address
    assert all(component.raw or not component.value for component in address.components)


@settings(deadline=None)
@given(
    st.text(max_size=60)
    | st.lists(
        st.sampled_from(["ip4", "unix", "p2p", "dns", "onion", "http-path", "1", "", "%", "a"])
    ).map(lambda words: "/" + "/".join(words))
)
def test_garbage_text_raises_or_round_trips(text: str) -> None:
    try:
        address = Multiaddr(text)
    except RemoteError:
        return
    assert Multiaddr(str(address)) == Multiaddr.from_bytes(bytes(address)) == address


# Limits and the security catalogue.


def test_row_24_text_is_refused_by_its_length() -> None:
    longest = "/dns4/" + "a" * (MAX_TEXT - 6)
    with pytest.raises(DecodeError, match="bytes"):
        Multiaddr(longest)
    with pytest.raises(DecodeError, match="2049 characters"):
        Multiaddr(longest + "a")
    with pytest.raises(DecodeError, match="characters"):
        Multiaddr("/p2p/" + "z" * 1_000_000)


def test_row_24_a_text_that_would_not_read_back() -> None:
    raw = b"\xff" * 600
    data = b"\xe1\x03" + varint.delimited(raw)
    assert len(str(Multiaddr.from_bytes(data))) == 1811
    data = b"\xe1\x03" + varint.delimited(b"\xff" * 700)
    with pytest.raises(DecodeError, match="text"):
        Multiaddr.from_bytes(data)
    with pytest.raises(DecodeError, match="text"):
        Multiaddr("/http-path/" + "\u00e9" * 400)


def test_the_size_limit() -> None:
    name = "a" * (MAX_BYTES - 3)
    most = Multiaddr(f"/dns/{name}")
    assert len(bytes(most)) == MAX_BYTES
    assert Multiaddr.from_bytes(bytes(most)) == most
    with pytest.raises(DecodeError, match="1025 bytes"):
        Multiaddr(f"/dns/{name}a")
    with pytest.raises(DecodeError, match="1025 bytes"):
        Multiaddr.from_bytes(b"\x35\xfe\x07" + b"a" * (MAX_BYTES - 2))


def test_row_25_nested_circuits() -> None:
    assert len(Multiaddr.from_bytes(CIRCUIT * MAX_COMPONENTS).components) == 16
    for many in (MAX_COMPONENTS + 1, 500):
        with pytest.raises(DecodeError, match="16 components"):
            Multiaddr.from_bytes(CIRCUIT * many)
        with pytest.raises(DecodeError, match=r"16 components|characters"):
            Multiaddr("/p2p-circuit" * many)


@pytest.mark.parametrize("code", [42, 53, 54, 55, 56, 400, 421, 446, 447, 449, 466, 481])
def test_row_25_empty_values(code: int) -> None:
    with pytest.raises(DecodeError, match="empty"):
        Multiaddr.from_bytes(varint.encode(code) + b"\x00")
    with pytest.raises(DecodeError, match="empty"):
        Multiaddr.from_bytes(varint.encode(code) + b"\x05abcd")
