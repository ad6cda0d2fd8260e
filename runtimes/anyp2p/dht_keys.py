"""What people name things by, as Kademlia knows them: all keys there are bytes.

content    CID, its text, its bytes, a multihash   ->  the multihash
value      "/ipns/k51...", "/app/name", bytes      ->  /namespace/ and the binary name
lookup     any of these, or a peer id              ->  what the lookup goes for
"""

from typing import TypeAlias

from anyp2p_core import multihash
from anyp2p_core.cid import CID
from anyp2p_core.errors import DecodeError, LocalError
from anyp2p_core.peer_id import PeerId

Content: TypeAlias = CID | multihash.Multihash | str | bytes
"""What is provided: a CID, its text, its bytes, or a multihash."""


def multihash_of(content: Content) -> bytes:
    """What stands for content on the wire: of a CID its multihash, so that its versions meet.

    Bytes that are no CID are taken as they are, 1 to 80 of them. DecodeError for other text.

    >>> multihash_of("QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n").hex()[:8]
    '1220e3b0'
    """
    if isinstance(content, CID):
        return content.multihash
    if isinstance(content, multihash.Multihash):
        return multihash.encode(content.code, content.digest)
    if isinstance(content, str):
        return CID.from_text(content).multihash
    if content[:1] == b"\x01":  # no multihash begins like this
        try:
            return CID.from_bytes(content).multihash
        except DecodeError:
            pass
    return content


def record_key(key: str | bytes) -> bytes:
    """The key of a value, from its bytes or as people write it.

    In text the name of "/pk/" and "/ipns/" is a peer id, written in either way; other namespaces
    are UTF-8. LocalError for text that is not /namespace/name.

    >>> record_key("/pk/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5")[:8].hex()
    '2f706b2f00240801'
    >>> record_key("/app/name")
    b'/app/name'
    """
    if isinstance(key, bytes):
        return key
    slash, _, rest = key.partition("/")
    namespace, _, name = rest.partition("/")
    if slash or not namespace or not name:
        raise LocalError(f"{key!r} is no key of a value: those are /namespace/name")
    if namespace in ("ipns", "pk"):
        return f"/{namespace}/".encode() + bytes(PeerId.parse(name))
    return key.encode()


def target_of(key: PeerId | Content) -> bytes:
    """What a lookup goes for."""
    if isinstance(key, PeerId):
        return bytes(key)
    if isinstance(key, str):
        if key.startswith("/"):
            return record_key(key)
        try:
            return multihash_of(key)
        except DecodeError:
            return bytes(PeerId.parse(key))
    return multihash_of(key)
