"""The ciphers of private networks, on the `pycryptodome` package (4.0 and newer).

Specs: https://cr.yp.to/snuffle/xsalsa-20110204.pdf, https://cr.yp.to/snuffle/spec.pdf

Why this one: PyNaCl has XSalsa20 only inside of boxes, not as a stream, and `cryptography` has
none; this has Salsa20 as a stream, in C, and XSalsa20 is Salsa20 under a key derived once:

    key, nonce 0..15   -> HSalsa20 -> key of the stream
    nonce 16..23       -> nonce of the stream

HSalsa20 is half a block of Salsa20 before its last step, which adds the input to the result. The
input of that half is constants, nonce and counter, no secret: the block comes from the library,
and what it added is subtracted here.
"""

from struct import Struct

from anyp2p.extras import MissingExtra, require
from anyp2p_core.pnet import Ciphers, StreamCipher

from .poison import poisoned_by_fork

require("Crypto", "pnet")

from Crypto.Cipher import Salsa20  # noqa: E402

if not hasattr(Salsa20.Salsa20Cipher, "seek"):
    raise MissingExtra("this needs pycryptodome 4.0 or newer: pip install -U 'anyp2p[pnet]'")


class SalsaCiphers(Ciphers):
    """Has no state: share one or make many."""

    def salsa20(self, key: bytes, nonce: bytes) -> StreamCipher:
        return poisoned_by_fork(Salsa20.new(key, nonce).encrypt)

    def xsalsa20(self, key: bytes, nonce: bytes) -> StreamCipher:
        return self.salsa20(hsalsa20(key, nonce[:16]), nonce[16:])


def hsalsa20(key: bytes, nonce: bytes) -> bytes:
    """The 32-byte key derived from one of 32 bytes and 16 bytes that need no secrecy."""
    cipher = Salsa20.new(key, nonce[:8])
    cipher.seek(_BLOCK * int.from_bytes(nonce[8:], "little"))
    block = _WORDS.unpack(cipher.encrypt(bytes(_BLOCK)))
    added = _CONSTANTS + _QUARTER.unpack(nonce)
    return _KEY.pack(
        *(block[at] - word & 0xFFFFFFFF for at, word in zip(_PUBLIC, added, strict=True))
    )


_BLOCK = 64
_WORDS = Struct("<16I")
_QUARTER = Struct("<4I")
_KEY = Struct("<8I")
_CONSTANTS = _QUARTER.unpack(b"expand 32-byte k")
_PUBLIC = (0, 5, 10, 15, 6, 7, 8, 9)
"""Where a block's input has the constants, then the nonce and the counter."""
