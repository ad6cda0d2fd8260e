"""DNS messages on the `dnspython` package, and which servers this system asks.

Specs: https://www.rfc-editor.org/rfc/rfc1035, rfc6891 (EDNS)

A reply comes from anybody. Before the library reads it, it is checked here in linear time: a
standard reply, with one question, at most MAX_RECORDS records, and compression pointers that lead
backwards and not through long chains of others, which would be followed for each name again.
"""

from typing import Any

from anyp2p_core.dns import Answer, Codec, Record, Server
from anyp2p_core.errors import DecodeError
from anyp2p_core.resolver import Kind

try:
    import dns.exception
    import dns.flags
    import dns.message
    import dns.name
    import dns.rdataclass
    import dns.rdatatype
    import dns.resolver
except ImportError as error:
    raise ImportError(
        "looking up names needs the 'dnspython' package: pip install 'anyp2p[dns]'"
    ) from error

PAYLOAD = 4096
"""Bytes of a datagram that a server may answer with."""
MAX_MESSAGE = 65535
MAX_RECORDS = 256
"""Of a message, in all sections."""
MAX_CHAIN = 8
"""Compression pointers that may lead to each other in a row."""


class DnsPython(Codec):
    """Everything ``DnsClient`` needs. It has no state: share one or make many."""

    def canonical(self, name: str) -> str:
        return _text(_name(name))

    def encode(self, id: int, name: str, kind: Kind) -> bytes:
        query = dns.message.make_query(_name(name), kind, use_edns=0, payload=PAYLOAD, id=id)
        return query.to_wire()

    def decode(self, data: bytes) -> Answer:
        _check(data)
        try:
            message = dns.message.from_wire(data)
            return _answer(message)
        except (dns.exception.DNSException, ValueError, LookupError) as error:
            raise DecodeError(f"a bad DNS message: {type(error).__name__}") from None


def system_servers() -> list[Server]:
    """The recursive servers that this system is configured with; empty if there are none."""
    try:
        found = dns.resolver.Resolver()
    except dns.resolver.NoResolverConfiguration:
        return []
    return [(server, found.port) for server in found.nameservers if isinstance(server, str)]


def _name(text: str) -> dns.name.Name:
    try:
        return dns.name.from_text(text)
    except (dns.exception.DNSException, UnicodeError) as error:
        reason = str(error) or type(error).__name__
        raise DecodeError(f"{text[:100]!r} cannot be looked up: {reason}") from None


def _text(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower()


def _check(data: bytes) -> None:
    if not 12 <= len(data) <= MAX_MESSAGE:
        raise DecodeError(f"a DNS message of {len(data)} bytes")
    flags = data[2]
    if flags & 0xF8 != 0x80:
        raise DecodeError("a DNS message that is no reply to a query")
    questions, *records = (int.from_bytes(data[at : at + 2]) for at in range(4, 12, 2))
    if questions != 1 or sum(records) > MAX_RECORDS:
        raise DecodeError(f"a DNS message of {questions} questions and {sum(records)} records")
    chains: dict[int, int] = {}
    for at in range(12, len(data) - 1):
        if data[at] >= 0xC0:
            # What only looks like a pointer is counted as well: eight in a row are no accident.
            target = (data[at] & 0x3F) << 8 | data[at + 1]
            chains[at] = chain = chains.get(target, 0) + 1
            if chain > MAX_CHAIN:
                raise DecodeError("a DNS message with a long chain of pointers")


def _answer(message: dns.message.Message) -> Answer:
    (question,) = message.question
    if question.rdclass != dns.rdataclass.IN:
        raise DecodeError("a DNS message of another class")
    records = [
        Record(_text(found.name), dns.rdatatype.to_text(found.rdtype), _value(record))
        for found in message.answer
        if found.rdclass == dns.rdataclass.IN
        for record in found
    ]
    return Answer(
        message.id,
        _text(question.name),
        dns.rdatatype.to_text(question.rdtype),
        int(message.rcode()),
        records,
        bool(message.flags & dns.flags.TC),
    )


def _value(record: Any) -> str:
    match record.rdtype:
        case dns.rdatatype.A | dns.rdatatype.AAAA:
            return str(record.address)
        case dns.rdatatype.TXT:
            return b"".join(record.strings).decode(errors="replace")
        case dns.rdatatype.CNAME:
            return _text(record.target)
    return ""
