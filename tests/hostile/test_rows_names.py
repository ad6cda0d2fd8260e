"""Attacks through names: what an address may lead to, and what DNS servers and forgers may say."""

import contextlib
import itertools
import struct
import time

import pytest
from stranger import KEYS

from anyp2p.providers.dns import DnsPython
from anyp2p_core import DecodeError, Dial, DialFailed, Limits, Multiaddr, RemoteError
from anyp2p_core.dialing import Dialing
from anyp2p_core.dns import DnsClient
from anyp2p_core.names import MAX_LOOKUPS, Names
from anyp2p_core.resolver import FakeResolver
from anyp2p_core.timers import Timers

PEER, OTHER, SELF = (key.peer_id for key in KEYS)
SERVER = ("192.0.2.53", 53)
CODEC = DnsPython()
SECONDS = 2.0
"""More than any of this may take, on a slow and busy machine."""


class Node:
    """The part of a node that dials."""

    def __init__(self, records, **options):
        self.timers = Timers()
        self.limits = Limits(max_parallel_dials=10**6, dial_stagger=0.0)
        self.peer_id = SELF
        self.ids = itertools.count(1)
        self.outputs = []
        self.act = self.emit = self.outputs.append
        self.resolver = FakeResolver(records, **options)
        self.dialing = Dialing(self, resolver=self.resolver)

    def next_id(self):
        return next(self.ids)

    def fail(self, conn, error, now):
        return False

    def dial(self, *texts, peer=PEER):
        """Where to, and the error if there is one already."""
        start = time.process_time()
        self.dialing.dial(peer, map(Multiaddr, texts), 0.0)
        assert time.process_time() - start < SECONDS
        targets = [str(item.address) for item in self.outputs if isinstance(item, Dial)]
        errors = [item.error for item in self.outputs if isinstance(item, DialFailed)]
        return targets, errors


def links(*texts):
    return [f"dnsaddr={text}" for text in texts]


def txt(name, *texts):
    return {(f"_dnsaddr.{name}", "TXT"): links(*texts)}


# Row 125


@pytest.mark.parametrize("suffix", ["", f"/p2p/{PEER}"], ids=["whoever", "peer"])
def test_row_125_names_that_lead_to_each_other(suffix):
    records = txt("a", f"/dnsaddr/b/p2p/{PEER}") | txt("b", f"/dnsaddr/a/p2p/{PEER}")
    node = Node(records)
    targets, (error,) = node.dial(f"/dnsaddr/a{suffix}")
    assert targets == [] and len(node.resolver.asked) == 2
    assert "looked up already" in str(error) and len(node.timers) == 0


def test_row_125_names_without_end():
    class Endless(FakeResolver):
        def query(self, name, kind, answered, now):
            self.records[name, kind] = links(f"/dnsaddr/x{name[9:]}/p2p/{PEER}")
            super().query(name, kind, answered, now)

    node = Node({})
    resolver = Endless({})
    node.dialing = Dialing(node, resolver=resolver)
    targets, (error,) = node.dial("/dnsaddr/a")
    assert targets == [] and len(resolver.asked) == 4 and "4 levels" in str(error)


def test_row_125_a_name_for_a_thousand_names():
    hosts = [f"{n}.example" for n in range(1000)]
    records = txt("a", *[f"/dnsaddr/{host}/p2p/{PEER}" for host in hosts])
    for host in hosts:
        records |= txt(host, *[f"/dnsaddr/{n}.{host}/p2p/{PEER}" for n in range(1000)])
    node = Node(records)
    targets, (error,) = node.dial("/dnsaddr/a")
    assert targets == [] and len(node.resolver.asked) == MAX_LOOKUPS == 32
    assert len(str(error)) < 1000


def test_row_125_many_names_in_one_dial_share_the_limits():
    records = {(f"{n}.example", "A"): [f"1.2.3.{n}"] for n in range(200)}
    node = Node(records)
    targets, _ = node.dial(*[f"/dns/{n}.example/tcp/1" for n in range(200)])
    assert len(node.resolver.asked) == 32 and len(targets) == 16


@pytest.mark.parametrize(
    "entry",
    [
        "x" * 255,
        "dnsaddr=" + "/" * 2040,
        "dnsaddr=" + "/ws" * 600,
        "dnsaddr=/" + "9" * 10**5,
        f"dnsaddr=/ip4/1.2.3.4/tcp/1/p2p/{OTHER}",
        f"dnsaddr=/ip4/1.2.3.4/tcp/1/p2p/{PEER}",
        f"dnsaddr=/dnsaddr/a/p2p/{PEER}",
    ],
    ids=lambda entry: entry[:24],
)
def test_row_125_ten_thousand_entries(entry):
    node = Node({("_dnsaddr.a", "TXT"): [entry] * 10**4})
    targets, _ = node.dial("/dnsaddr/a")
    assert targets == (["/ip4/1.2.3.4/tcp/1"] if f"tcp/1/p2p/{PEER}" in entry else [])


def test_row_125_ten_thousand_addresses():
    entries = [f"/ip4/1.2.{n // 250}.{n % 250}/tcp/1/p2p/{PEER}" for n in range(10**4)]
    node = Node(txt("a", *entries))
    targets, _ = node.dial("/dnsaddr/a")
    assert len(targets) == node.limits.max_dial_addresses == 32
    found = []
    names = Names(node, node.resolver).start(lambda *one: found.append(one), lambda *one: None)
    names.add(Multiaddr("/dnsaddr/a"), None, 0.0)
    assert len(found) == 64


def test_row_125_nothing():
    node = Node({("_dnsaddr.a", "TXT"): [], ("b", "A"): [], ("b", "AAAA"): []})
    targets, (error,) = node.dial("/dnsaddr/a", "/dns/b/tcp/1", "/dns4/c/tcp/1")
    assert targets == []
    for text in ("_dnsaddr.a has no TXT", "b has no A records", "there is no c"):
        assert text in str(error)


@pytest.mark.parametrize("suffix", ["", f"/p2p/{PEER}"], ids=["whoever", "peer"])
def test_row_125_addresses_of_another_peer(suffix):
    records = txt("a", f"/ip4/1.2.3.4/tcp/1/p2p/{OTHER}", "/ip4/1.2.3.4/tcp/2", "/dnsaddr/b")
    records |= txt("b", f"/ip4/1.2.3.4/tcp/3/p2p/{PEER}")
    node = Node(records)
    targets, (error,) = node.dial(f"/dnsaddr/a{suffix}")
    assert targets == [] and "says nothing of" in str(error)
    assert len(node.resolver.asked) == 1


def test_row_125_an_answer_that_never_comes():
    timers = Timers()
    node = Node({}, timers=timers, delay=1e9)
    node.dial("/dnsaddr/a")
    when = node.timers.next_timeout()
    assert when == 10.0
    node.timers.run(when)
    assert isinstance(node.outputs[-1], DialFailed) and len(node.timers) == 0


# Row 126


HEADER = struct.Struct("!6H")
QUESTION = b"\1a\7example\0" + struct.pack("!HH", 16, 1)


def message(*records, question=QUESTION, counts=None, flags=0x8180):
    """A reply; each record is the wire form of its name and of its data, and a type."""
    body = b"".join(
        name + struct.pack("!HHIH", kind, 1, 60, len(data)) + data for name, kind, data in records
    )
    return HEADER.pack(7, flags, 1, counts or len(records), 0, 0) + question + body


def refused(data):
    """It is, and quickly."""
    start = time.process_time()
    with pytest.raises(DecodeError):
        CODEC.decode(data)
    assert time.process_time() - start < SECONDS


def pointer(at):
    return struct.pack("!H", 0xC000 | at)


OPAQUE = 65280
"""A type whose data nobody reads."""
HERE = 12 + len(QUESTION)
"""Where the first record begins."""


@pytest.mark.parametrize(
    "name",
    [
        lambda at: pointer(at),  # to itself
        lambda at: b"\1a" + pointer(at),  # around
        lambda at: pointer(at + 2) + pointer(at),  # to each other
        lambda at: pointer(at + 40),  # forward
        lambda at: pointer(0x3FFF),  # out of the message
        lambda at: b"\x40a\0",  # labels of unknown kinds
        lambda at: b"\x80a\0",
        lambda at: b"\1a" * 128 + b"\0",  # 257 bytes
        lambda at: b"\x3f" + bytes(10),
    ],
)
def test_row_126_names_that_lead_nowhere(name):
    refused(message((name(HERE), 16, b"\1x")))
    refused(message((b"\1a\0", 5, name(HERE + 13))))  # as the target of an alias
    refused(message(question=name(12) + struct.pack("!HH", 16, 1)))


def test_row_126_pointers_in_a_long_chain():
    """Each record costs the whole chain, if it is followed."""
    start = HERE + 11
    chain = b"\0\0" + b"".join(pointer(start + max(2 * n, 1)) for n in range(4000))
    last = pointer(start + len(chain) - 2)
    refused(message((b"\0", OPAQUE, chain), *[(last, 16, b"\1x")] * 250))


@pytest.mark.parametrize("pointers", range(9))
def test_row_126_the_dearest_reply_that_is_read(pointers):
    """Names of 127 labels, each behind as many pointers as may be, in every record."""
    data = bytearray(b"\0")
    at = HERE + 11
    place = at
    for _ in range(126):
        for _ in range(pointers):
            data += pointer(place)
            place = at + len(data) - 2
        data += b"\1a" + pointer(place)
        place = at + len(data) - 4
    name = pointer(place)
    whole = message((b"\0", OPAQUE, bytes(data)), *[(name, 16, b"\1x")] * 250)
    start = time.process_time()
    with contextlib.suppress(DecodeError):  # also the library, in newer versions, has a limit
        CODEC.decode(whole)
    assert time.process_time() - start < SECONDS


def test_row_126_sixty_thousand_bytes_of_anything():
    for body in (b"\xc0\x0c", b"\0", b"\xff", b"\x3f", b"\1a", b"\xc0\x0c\0\x10\0\1\0\0\0\0\0\0"):
        data = HEADER.pack(7, 0x8180, 1, 250, 0, 0) + QUESTION + body * (60_000 // len(body))
        refused(data)


def test_row_126_more_records_than_bytes():
    refused(message((b"\0", 16, b"\1x"), counts=65535))
    refused(message((b"\0", 16, b"\1x"), counts=2))


def test_row_126_a_record_longer_than_the_message():
    good = message((b"\0", 16, b"\1x"))
    assert CODEC.decode(good).records
    refused(good[:-4] + b"\xff\xff" + good[-2:])
    refused(message((b"\0", 16, b"\xffx")))
    refused(message((b"\0", 16, b"")))
    refused(message((b"\0", 1, b"\1\2\3")))
    refused(message((b"\0", 1, b"\1\2\3\4\5")))


class Client:
    """A DNS client on the real codec."""

    def __init__(self):
        self.timers = Timers()
        self.sent = []
        self.answers = []
        self.dns = DnsClient(self, CODEC, [SERVER, ("192.0.2.54", 53)])

    def entropy(self, n):
        return b"\xab\xcd"[:n]

    def send(self, query, server, data):
        self.sent.append((query, server, data))

    def send_by_stream(self, query, server, data):
        return False

    def done(self, query):
        pass

    def ask(self, name="a.example", kind="TXT"):
        self.dns.query(name, kind, lambda records, now: self.answers.append(records), 0.0)
        return self.sent[-1]

    def receive(self, data, query=1, source=SERVER, id=b"\xab\xcd"):
        self.dns.receive(query, id + data[2:], source, 0.0)


def test_row_126_replies_that_belong_to_nobody():
    client = Client()
    client.ask()
    good = message((b"\1a\7example\0", 16, b"\1x"))
    client.receive(good, source=("192.0.2.54", 53))  # a server that was not asked yet
    client.receive(good, source=("203.0.113.66", 53))
    client.receive(good, source=("192.0.2.53", 54))
    client.receive(good, query=2)
    client.receive(good, id=b"\xab\xce")
    other = b"\1b\7example\0" + struct.pack("!HH", 16, 1)
    client.receive(message((b"\1a\7example\0", 16, b"\1y"), question=other))
    client.receive(message(question=QUESTION[:-4] + struct.pack("!HH", 1, 1)))
    client.receive(message(question=QUESTION[:-4] + struct.pack("!HH", 16, 3)))
    client.receive(message(flags=0x0100))  # our own query
    assert client.answers == [] and len(client.sent) == 1
    client.receive(good)
    assert client.answers == [["x"]]


def test_row_126_records_of_another_name_or_zone():
    client = Client()
    client.ask()
    client.receive(
        message(
            (b"\1b\7example\0", 16, b"\1y"),
            (b"\7example\0", 16, b"\1y"),
            (b"\1x\1a\7example\0", 16, b"\1y"),
            (b"\4evil\0", 16, b"\1y"),
            (b"\4evil\0", 5, b"\1a\7example\0"),
            (b"\1A\7EXAMPLE\0", 16, b"\1x"),
        )
    )
    assert client.answers == [["x"]]


def test_row_126_aliases_that_go_around():
    client = Client()
    client.ask()
    a, b = b"\1a\7example\0", b"\1b\7example\0"
    for _ in range(3):
        client.receive(message((a, 5, b), (b, 5, a), (a, 16, b"\1x")))
    client.receive(message((a, 5, a)))
    assert client.answers == []
    client.timers.run(2.0)
    client.timers.run(4.0)
    client.timers.run(6.0)
    assert len(client.answers) == 1 and isinstance(client.answers[0], RemoteError)


def test_row_126_cut_at_every_byte():
    client = Client()
    client.ask()
    good = message((b"\1a\7example\0", 16, b"\1x"))
    for end in range(len(good)):
        client.dns.receive(1, (b"\xab\xcd" + good[2:])[:end], SERVER, 0.0)
    assert client.answers == []
    client.receive(good)
    assert client.answers == [["x"]]


def test_row_126_ten_thousand_forged_replies():
    client = Client()
    client.ask()
    forged = message(*[(b"\1a\7example\0", 16, b"\1y")] * 100)
    start = time.process_time()
    for number in range(10**4):
        if number != 0xABCD:
            client.receive(forged, id=number.to_bytes(2))
    assert time.process_time() - start < SECONDS  # they are not even read
    assert client.answers == [] and len(client.timers) == 1
