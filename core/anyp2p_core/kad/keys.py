"""The key space of Kademlia: 256 bits, distance by XOR.

Spec: https://github.com/libp2p/specs/blob/master/kad-dht/README.md

    key of a peer       sha256(binary peer id)
    key of content      sha256(multihash), sha256(b"/namespace/name")
    distance            key XOR key, read as a number
    common prefix       leading bits that two keys share: 0 for half of the network
                        |   0   |  1  | 2 | ... own key

Keys are ints: XOR, comparison and bit_length are then single operations.
"""

from bisect import bisect_left
from hashlib import sha256

from ..crypto import Choice

Key = int
BITS = 256

MAX_PREIMAGE = 12
"""The longest common prefix that ``preimage`` looks for: 8192 hashes on average."""

_SMALL = 32
"""Keys that are sorted at once rather than split further."""


def key_of(data: bytes) -> Key:
    """The key of a binary peer id, a multihash or a record's key."""
    return int.from_bytes(sha256(data).digest())


def distance(a: Key, b: Key) -> int:
    """How far apart two keys are."""
    return a ^ b


def common_prefix(a: Key, b: Key) -> int:
    """How many leading bits two keys share: the index of the bucket, 256 if they are equal.

    >>> common_prefix(0, 1), common_prefix(0, 1 << 255)
    (255, 0)
    """
    return BITS - (a ^ b).bit_length()


def nearest(keys: list[Key], target: Key, count: int) -> list[Key]:
    """The ``count`` keys closest to ``target``, closest first; ``keys`` is sorted.

    Walks the sorted list as if it were a binary trie, so that only some dozen keys are compared.
    """
    found: list[Key] = []
    farther: list[tuple[int, int]] = []
    low, high = 0, len(keys)
    xor = target.__xor__
    while len(found) < count:
        while high - low > _SMALL:
            # All of these keys agree above this bit: it alone says which half is closer.
            bit = (keys[low] ^ keys[high - 1]).bit_length() - 1
            middle = bisect_left(keys, keys[high - 1] >> bit << bit, low, high)
            if target >> bit & 1:
                farther.append((low, middle))
                low = middle
            else:
                farther.append((middle, high))
                high = middle
        found += sorted(keys[low:high], key=xor)
        if not farther:
            break
        low, high = farther.pop()
    return found[:count]


def preimage(own: Key, prefix: int, choice: Choice, tries: int = 64) -> bytes:
    """Something to look up whose key shares exactly ``prefix`` leading bits with ``own``.

    ``prefix`` is at most MAX_PREIMAGE. It looks like a peer id, which is all that some peers accept
    for FIND_NODE. Gives up after ``tries << prefix`` hashes and returns whatever it had.
    """
    shift = 63 - prefix
    wanted = own >> (BITS - 1 - prefix) ^ 1
    start = choice.below(1 << 63)
    data = b""
    for number in range(start, start + (tries << prefix)):
        data = b"\x12\x20" + number.to_bytes(32)
        if int.from_bytes(sha256(data).digest()[:8]) >> shift == wanted:
            break
    return data
