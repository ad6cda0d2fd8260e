"""Protocol buffers, driven by a schema.

https://protobuf.dev/programming-guides/encoding/

    message  { tag value }             tag = varint(number << 3 | wire type)
    value    0 varint   1 8 bytes   2 varint(length) data   5 4 bytes

A message is a dataclass, its schema is made once:

>>> from dataclasses import dataclass, field
>>> @dataclass(slots=True)
... class Greeting:
...     text: str | None = None
...     lucky: list[int] = field(default_factory=list)
>>> GREETING = Schema(
...     Greeting, Field(1, "text", STRING), Field(2, "lucky", UINT, repeated=True, limit=8)
... )
>>> GREETING.encode(Greeting("hi", [7]))
b'\\n\\x02hi\\x10\\x07'
>>> GREETING.decode(b'\\n\\x02hi\\x10\\x07')
Greeting(text='hi', lucky=[7])

Reading: unknown fields are skipped without recursion, groups are refused, messages nest as deep
as their schemas do. A scalar that comes twice counts the last time, an embedded message that comes
twice is merged, and so are encoded messages that are joined. Counts are checked before an element
is kept. Writing: ascending field numbers, shortest varints, nothing that is None.
"""

from dataclasses import dataclass, fields
from enum import IntEnum
from functools import cache
from operator import attrgetter
from typing import Any, Final, Generic, Literal, TypeVar

from .errors import DecodeError, LocalError
from .varint import Data

Message = TypeVar("Message")


class Kind(IntEnum):
    """How a scalar is written."""

    BYTES = 0
    STRING = 1
    """UTF-8; what is not becomes U+FFFD when read."""
    UINT = 3
    """A varint of at most 64 bits: uint64, uint32, enum, and int64 or int32 if never negative."""
    BOOL = 4
    FIXED64 = 5
    FIXED32 = 6


BYTES: Final = Kind.BYTES
STRING: Final = Kind.STRING
UINT: Final = Kind.UINT
BOOL: Final = Kind.BOOL
FIXED64: Final = Kind.FIXED64
FIXED32: Final = Kind.FIXED32


@dataclass(slots=True)
class Field:
    """One field of a message: its number, the attribute that holds it, and how it is written.

    Absent fields are None, except with ``required`` (DecodeError when absent), ``implicit``
    (proto3: a zero value is not written, an absent field is zero) and ``repeated`` (a list).
    ``limit`` is the most elements read: one more is a DecodeError, or ignored with
    ``overflow="drop"``.
    """

    number: int
    name: str
    kind: "Kind | Schema[Any]"
    repeated: bool = False
    limit: int = 0
    required: bool = False
    implicit: bool = False
    overflow: Literal["reject", "drop"] = "reject"


_Reader = tuple[bool, int, int, int]
"""What reading a tag needs: if a length follows, how, the argument's place, the count limit."""
_Writer = tuple[int, int, bytes, tuple[bytes, ...], "Schema[Any] | None"]
"""What writing a field needs: presence, kind, the tag, the tag with every one-byte number."""


class Schema(Generic[Message]):
    """Encodes and decodes one message class, whose first arguments are the schema's fields."""

    __slots__ = ("_blank", "_finish", "_get", "_make", "_names", "_readers", "_short", "_writers")

    def __init__(self, message: type[Message], *members: Field) -> None:
        ordered = sorted(members, key=lambda member: member.number)
        places = _places(message, ordered)
        names = [member.name for member in ordered]
        self._make = message
        # attrgetter returns a tuple only for two names or more.
        self._get = attrgetter(*names if len(names) > 1 else (names or ["__class__"]) * 2)
        self._names = {member.number: f"{message.__name__}.{member.name}" for member in ordered}
        self._writers: list[_Writer] = []
        self._readers: dict[int, _Reader] = {}
        # By argument of the message class: what it is until its field was read, and how it is
        # completed when all was read.
        self._blank: list[Any] = [None] * len(ordered)
        self._finish: list[tuple[int, int, str, Schema[Any] | None]] = []
        for member in ordered:
            place, presence = places[member.name], _presence(member)
            embedded = member.kind if isinstance(member.kind, Schema) else None
            kind = _MESSAGE if isinstance(member.kind, Schema) else int(member.kind)
            tag = member.number << 3 | _WIRE_TYPES[kind]
            self._writers.append((presence, kind, _varint(tag), _heads(tag), embedded))
            many = _MANY if presence == _REPEATED else 0
            drop = _DROP if member.overflow == "drop" else 0
            read = kind | many | drop
            self._readers[tag] = kind <= _MESSAGE, read, place, member.limit
            if many and kind > _MESSAGE:
                self._readers[member.number << 3 | 2] = True, read, place, member.limit
            if presence == _IMPLICIT:
                self._blank[place] = _ZEROS[kind]
            elif embedded or presence != _OPTIONAL:
                self._finish.append((place, presence, self._names[member.number], embedded))
        self._short = [self._readers.get(tag) for tag in range(0x80)] + [None] * 0x80

    def encode(self, message: Message) -> bytes:
        """The bytes of a message; LocalError if a value is missing or does not fit."""
        parts: list[bytes] = []
        append = parts.append
        try:
            # Naming strict= would cost 0.2 us.
            for value, writer in zip(self._get(message), self._writers):  # noqa: B905
                presence, kind, tag, heads, embedded = writer
                if not value:
                    if value is None:
                        if presence == _REQUIRED:
                            name = self._names[read_varint(tag, 0)[0] >> 3]
                            raise LocalError(f"{name} is missing")
                        continue
                    if presence >= _IMPLICIT:
                        continue
                if kind == _BYTES and presence != _REPEATED:  # most of the fields there are
                    size = len(value)
                    append(heads[size] if size < 0x80 else tag + _varint(size))
                    append(value)
                    continue
                for item in value if presence == _REPEATED else (value,):
                    if kind <= _MESSAGE:
                        if kind == _STRING:
                            item = item.encode()
                        elif embedded:
                            item = embedded.encode(item)
                        size = len(item)
                        append(heads[size] if size < 0x80 else tag + _varint(size))
                        append(item)
                    elif kind == _FIXED64:
                        append(tag + item.to_bytes(8, "little"))
                    elif kind == _FIXED32:
                        append(tag + item.to_bytes(4, "little"))
                    else:
                        append(heads[item] if 0 <= item < 0x80 else tag + _varint(item))
        except (OverflowError, UnicodeEncodeError) as error:
            raise LocalError(f"a value of {self._make.__name__} does not fit: {error}") from None
        return b"".join(parts)

    def decode(self, data: Data) -> Message:
        """The message that ``data`` is, from its first to its last byte."""
        if type(data) is not bytes:
            data = bytes(data)
        try:
            return self._read(data, 0, len(data))
        except IndexError:
            raise DecodeError(f"a {self._make.__name__} is cut off") from None

    def _read(self, data: bytes, pos: int, end: int) -> Message:
        # A number that straddles ``end`` is read from what follows (an IndexError if nothing
        # does) and refused afterwards, because the position behind it is not in the message.
        values = self._blank.copy()
        short = self._short
        value: Any
        while pos < end:
            entry = short[data[pos]]
            if entry is None:
                entry, pos = self._read_tag(data, pos)
                if entry is None:
                    continue
            else:
                pos += 1
            delimited, read, place, limit = entry
            if delimited:
                start = pos + 1
                pos = data[pos]
                if pos > 0x7F:
                    pos, start = read_varint(data, start - 1)
                pos += start
                if pos > end:
                    raise DecodeError(f"a field of {self._make.__name__} is cut off")
                if read == _BYTES:
                    values[place] = data[start:pos]
                    continue
                kind = read & _KIND
                if kind == _MESSAGE:
                    value = start, pos
                    if read == _MESSAGE and values[place] is not None:
                        value = _merge(values[place], data, start, pos)
                elif kind == _BYTES:
                    value = data[start:pos]
                elif kind == _STRING:
                    value = data[start:pos].decode("utf-8", "replace")
                else:
                    values[place] = self._read_packed(entry, values[place], data, start, pos)
                    continue
            else:
                value, pos = _read_number(read & _KIND, data, pos)
            if read < _MANY:
                values[place] = value
            elif (items := values[place]) is None:
                values[place] = [value]
            elif len(items) < limit:
                items.append(value)
            elif not read & _DROP:
                raise self._too_many(limit)
        if pos != end:
            raise DecodeError(f"a {self._make.__name__} is cut off")
        # Embedded messages are built last, when their number is known to be within the limit.
        for place, presence, name, embedded in self._finish:
            held = values[place]
            if held is None:
                if presence == _REQUIRED:
                    raise DecodeError(f"{name} is missing")
                if presence == _REPEATED:
                    values[place] = []
            elif embedded is not None:
                if presence == _REPEATED:
                    values[place] = [embedded._read(data, *span) for span in held]
                elif type(held) is tuple:
                    values[place] = embedded._read(data, *held)
                else:
                    values[place] = embedded._read(bytes(held), 0, len(held))
        return self._make(*values)

    def _read_tag(self, data: bytes, pos: int) -> tuple[_Reader | None, int]:
        """Reads a tag that is unknown or longer than a byte, and the whole field if unknown."""
        tag, pos = read_varint(data, pos)
        if tag in self._readers:
            return self._readers[tag], pos
        number, wire = tag >> 3, tag & 7
        if number in self._names:
            raise DecodeError(f"{self._names[number]} has the wrong wire type {wire}")
        if not 0 < number <= _MAX_NUMBER:
            raise DecodeError(f"{number} is not a field number")
        if wire == 0:
            return None, read_varint(data, pos)[1]
        if wire == 1:
            return None, pos + 8
        if wire == 2:
            size, pos = read_varint(data, pos)
            return None, pos + size
        if wire == 5:
            return None, pos + 4
        raise DecodeError(f"groups and wire type {wire} are not accepted")

    def _read_packed(
        self, entry: _Reader, items: list[Any] | None, data: bytes, pos: int, end: int
    ) -> list[Any]:
        _, read, _, limit = entry
        items = items or []
        while pos < end:
            value, pos = _read_number(read & _KIND, data, pos)
            if len(items) < limit:
                items.append(value)
            elif not read & _DROP:
                raise self._too_many(limit)
        if pos != end:
            raise DecodeError(f"a packed number in {self._make.__name__} is cut off")
        return items

    def _too_many(self, limit: int) -> DecodeError:
        return DecodeError(f"a repeated field of {self._make.__name__} exceeds its limit {limit}")


# How a field is read: its kind, with flags for repeated ones and for ignoring too many.
_BYTES = int(BYTES)
_STRING = int(STRING)
_MESSAGE = 2
_BOOL = int(BOOL)
_FIXED64 = int(FIXED64)
_FIXED32 = int(FIXED32)
_KIND = 7
_MANY = 8
_DROP = 16

_WIRE_TYPES = [2, 2, 2, 0, 0, 1, 5]  # by kind
_ZEROS = [b"", "", None, 0, False, 0, 0]  # by kind
_MAX_NUMBER = 2**29 - 1

# What to do where there is no value or only a zero.
_OPTIONAL, _REQUIRED, _IMPLICIT, _REPEATED = range(4)


def _presence(member: Field) -> int:
    if member.repeated:
        return _REPEATED
    if member.required:
        return _REQUIRED
    return _IMPLICIT if member.implicit else _OPTIONAL


def _places(message: type[Any], members: list[Field]) -> dict[str, int]:
    """The place of each field among the message's arguments, if the schema makes sense."""
    for member in members:
        if not 0 < member.number <= _MAX_NUMBER:
            raise LocalError(f"{member.number} is not a field number")
        if member.repeated + member.required + member.implicit > 1:
            raise LocalError(f"{member.name}: repeated, required and implicit exclude each other")
        if member.repeated != (member.limit > 0):
            raise LocalError(f"{member.name}: a repeated field, and no other, needs a limit")
        if member.overflow == "drop" and not member.repeated:
            raise LocalError(f"{member.name}: only elements of a repeated field can be dropped")
        if member.implicit and isinstance(member.kind, Schema):
            raise LocalError(f"{member.name}: an embedded message has no zero value")
    if len({member.number for member in members}) < len(members):
        raise LocalError(f"{message.__name__}: a field number is used twice")
    arguments = [field.name for field in fields(message) if field.init and not field.kw_only]
    if sorted(arguments[: len(members)]) != sorted(member.name for member in members):
        raise LocalError(f"{message.__name__}: its first arguments are not the schema's fields")
    return {name: place for place, name in enumerate(arguments)}


@cache
def _heads(tag: int) -> tuple[bytes, ...]:
    """A tag with every one-byte number behind it."""
    return tuple(_varint(tag) + bytes((number,)) for number in range(0x80))


def _varint(number: int) -> bytes:
    if 0x80 <= number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    if not 0 <= number < 1 << 64:
        raise OverflowError(f"{number} is not an unsigned number of 64 bits")
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def read_varint(data: bytes, pos: int) -> tuple[int, int]:
    """A number of at most 64 bits, however many bytes up to ten it was written with, and its end.

    IndexError if it is cut off.
    """
    value = data[pos]
    if value < 0x80:
        return value, pos + 1
    byte = data[pos + 1]
    if byte < 0x80:  # the size of most messages
        return value & 0x7F | byte << 7, pos + 2
    value = shift = 0
    for at in range(pos, pos + 10):
        byte = data[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80 and value < 1 << 64:
            return value, at + 1
        shift += 7
    raise DecodeError("a number of more than 64 bits")


def _read_number(kind: int, data: bytes, pos: int) -> tuple[int, int]:
    if kind == _FIXED64:
        return int.from_bytes(data[pos : pos + 8], "little"), pos + 8
    if kind == _FIXED32:
        return int.from_bytes(data[pos : pos + 4], "little"), pos + 4
    value, pos = read_varint(data, pos)
    return (value != 0 if kind == _BOOL else value), pos


def _merge(held: tuple[int, int] | bytearray, data: bytes, pos: int, end: int) -> bytearray:
    """Encoded messages are merged by joining them; one buffer keeps a run of them linear."""
    if isinstance(held, tuple):
        held = bytearray(data[held[0] : held[1]])
    held += data[pos:end]
    return held
