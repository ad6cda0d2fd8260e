"""anyp2p.providers.dns"""

import struct
import subprocess
import sys

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.resolver
import dns.rrset
import pytest
from hypothesis import given, settings, strategies as st

from anyp2p.providers.dns import MAX_MESSAGE, MAX_RECORDS, PAYLOAD, DnsPython, system_servers
from anyp2p_core import DecodeError, RemoteError
from anyp2p_core.dns import Answer, Record

CODEC = DnsPython()


def reply(*records, name="a.example", kind="A", id=7, code=0, flags=0):
    """The reply of a real server; records are (name, kind, text)."""
    message = dns.message.make_response(dns.message.make_query(name, kind, id=id))
    message.flags |= flags
    message.set_rcode(code)
    for owner, what, text in records:
        message.answer.append(dns.rrset.from_text(owner, 60, "IN", what, text))
    return message.to_wire(max_size=65535)


# Names and queries


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("a.example", "a.example"),
        ("A.Example.", "a.example"),
        ("_dnsaddr.a.example", "_dnsaddr.a.example"),
        ("b\u00fccher.example", "xn--bcher-kva.example"),
        ("x" * 63 + ".example", "x" * 63 + ".example"),
    ],
)
def test_canonical_names(name, canonical):
    assert CODEC.canonical(name) == canonical
    assert CODEC.decode(reply(name=canonical)).name == canonical


@pytest.mark.parametrize(
    "name", ["a..b", ".a", "x" * 64, "a." * 200, "\\", "\\999", "\u00fc" * 64, "\ud800"]
)
def test_names_that_cannot_be_looked_up(name):
    with pytest.raises(DecodeError, match="cannot be looked up"):
        CODEC.canonical(name)


@given(st.text(max_size=80))
def test_any_name_is_canonical_or_refused(name):
    try:
        canonical = CODEC.canonical(name)
    except DecodeError:
        return
    assert CODEC.canonical(canonical) == canonical
    assert CODEC.encode(1, canonical, "A")


@pytest.mark.parametrize("kind", ["A", "AAAA", "TXT"])
def test_queries(kind):
    data = CODEC.encode(0xABCD, "a.example", kind)
    message = dns.message.from_wire(data)
    assert message.id == 0xABCD and message.flags & dns.flags.RD
    assert str(message.question[0]) == f"a.example. IN {kind}"
    assert message.edns == 0 and message.payload == PAYLOAD == 4096
    assert data[:12] == bytes.fromhex("abcd 0100 0001 0000 0000 0001")


# Replies


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (reply(), Answer(7, "a.example", "A", 0, [])),
        (
            reply(("a.example.", "A", "192.0.2.1")),
            Answer(7, "a.example", "A", 0, [Record("a.example", "A", "192.0.2.1")]),
        ),
        (
            reply(("A.Example.", "AAAA", "2001:DB8::1"), kind="AAAA", id=65535),
            Answer(65535, "a.example", "AAAA", 0, [Record("a.example", "AAAA", "2001:db8::1")]),
        ),
        (  # the strings of one record belong together
            reply(("a.example.", "TXT", '"dnsaddr=/ip4/" "192.0.2.1"'), kind="TXT"),
            Answer(
                7, "a.example", "TXT", 0, [Record("a.example", "TXT", "dnsaddr=/ip4/192.0.2.1")]
            ),
        ),
        (
            reply(("a.example.", "TXT", '"\\255\\000x"'), kind="TXT"),
            Answer(7, "a.example", "TXT", 0, [Record("a.example", "TXT", "\ufffd\0x")]),
        ),
        (
            reply(("a.example.", "CNAME", "B.Example."), ("b.example.", "A", "192.0.2.1")),
            Answer(
                7,
                "a.example",
                "A",
                0,
                [
                    Record("a.example", "CNAME", "b.example"),
                    Record("b.example", "A", "192.0.2.1"),
                ],
            ),
        ),
        (
            reply(("a.example.", "MX", "1 b.example.")),
            Answer(7, "a.example", "A", 0, [Record("a.example", "MX", "")]),
        ),
        (reply(code=3), Answer(7, "a.example", "A", 3, [])),
        (reply(code=2), Answer(7, "a.example", "A", 2, [])),
        (reply(flags=dns.flags.TC), Answer(7, "a.example", "A", 0, [], True)),
    ],
)
def test_replies(data, answer):
    assert CODEC.decode(data) == answer
    with pytest.raises(DecodeError):
        CODEC.decode(data + b"\0")


def test_other_sections_and_classes_say_nothing():
    message = dns.message.make_response(dns.message.make_query("a.example", "A", id=7))
    message.authority.append(dns.rrset.from_text("a.example.", 60, "IN", "A", "192.0.2.1"))
    message.additional.append(dns.rrset.from_text("a.example.", 60, "IN", "A", "192.0.2.2"))
    message.answer.append(dns.rrset.from_text("a.example.", 60, "CH", "TXT", "x"))
    assert CODEC.decode(message.to_wire()).records == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(11),
        bytes(12),
        CODEC.encode(7, "a.example", "A"),  # a query
        reply(flags=dns.flags.TC)[:12],
        reply()[:4] + b"\0\0" + reply()[6:],  # no question
        reply()[:4] + b"\0\2" + reply()[6:] + reply()[12:],  # two
        bytes((0, 7, 0xA8)) + reply()[3:],  # an update
        reply()[:-4] + b"\0\1\0\3",  # of class CHAOS
        reply() + bytes(MAX_MESSAGE),
        reply()[:6] + (MAX_RECORDS + 1).to_bytes(2) + reply()[8:],
    ],
    ids=lambda data: str(len(data)),
)
def test_what_is_no_reply(data):
    with pytest.raises(DecodeError):
        CODEC.decode(data)


def test_as_many_records_as_are_allowed():
    records = [("a.example.", "A", f"192.0.{n // 256}.{n % 256}") for n in range(MAX_RECORDS)]
    data = reply(*records)
    assert len(CODEC.decode(data).records) == MAX_RECORDS
    with pytest.raises(DecodeError, match="records"):
        CODEC.decode(reply(*records, ("a.example.", "A", "192.0.255.1")))


def test_row_126_a_reply_cut_at_every_byte():
    data = reply(("a.example.", "CNAME", "b.example."), ("b.example.", "TXT", "x"), kind="TXT")
    for end in range(len(data)):
        with pytest.raises(DecodeError):
            CODEC.decode(data[:end])


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_row_126_a_reply_with_changed_bytes(data):
    whole = bytearray(
        reply(("a.example.", "CNAME", "b.example."), ("b.example.", "A", "192.0.2.1"))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        CODEC.decode(bytes(whole))
    except RemoteError as error:
        assert type(error) is DecodeError


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=300), st.integers(0, 3), st.booleans())
def test_garbage_behind_a_good_beginning(rest, count, with_question):
    start = struct.pack("!6H", 7, 0x8180, 1, count, 0, 0)
    data = start + (reply()[12:] if with_question else b"") + rest
    try:
        CODEC.decode(data)
    except RemoteError as error:
        assert type(error) is DecodeError


# The system


def test_the_servers_of_the_system(tmp_path, monkeypatch):
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 192.0.2.53\nnameserver 2001:db8::53\nsearch example\n")
    real = dns.resolver.Resolver
    monkeypatch.setattr(dns.resolver, "Resolver", lambda: real(str(path)))
    assert system_servers() == [("192.0.2.53", 53), ("2001:db8::53", 53)]
    path.write_text("search example\n")
    assert system_servers() == []


def test_the_extra_is_missing():
    program = (
        "import sys; sys.modules['dns'] = None\n"
        "try: import anyp2p.providers.dns\n"
        "except ImportError as error: print(error)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "pip install 'anyp2p[dns]'" in found.stdout
