from contextlib import suppress
from typing import Any

import pytest
import vectors
from hypothesis import given, settings, strategies as st

from anyp2p_core import multibase
from anyp2p_core.errors import DecodeError, LocalError, RemoteError

CASES = vectors.load("multibase")["cases"]
# An alphabet of 256 emoji, made to test Unicode support; no protocol uses it.
UNSUPPORTED = "base256emoji"
SUPPORTED = [case for case in CASES if case["encoding"] != UNSUPPORTED]
NAMES = sorted({case["encoding"] for case in SUPPORTED})
PREFIXES = "079fFbBcCvVtThkKzZmMuU"


@pytest.mark.parametrize("case", SUPPORTED, ids=lambda case: f"{case['file']}-{case['encoding']}")
def test_vectors(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["plain_hex"])
    assert multibase.decode(case["encoded"]) == data
    if not case["decode_only"]:
        assert multibase.encode(case["encoding"], data) == case["encoded"]
        assert multibase.encode(case["encoded"][0], bytearray(data)) == case["encoded"]


@pytest.mark.parametrize("case", [case for case in CASES if case["encoding"] == UNSUPPORTED])
def test_vectors_of_a_base_that_is_not_supported(case: dict[str, Any]) -> None:
    with pytest.raises(DecodeError, match="unknown multibase"):
        multibase.decode(case["encoded"])


def test_every_prefix_has_a_vector() -> None:
    assert len(NAMES) == len(PREFIXES)
    assert {multibase.encode(name, b"")[0] for name in NAMES} == set(PREFIXES)
    assert multibase.encode(multibase.BASE16, b"\xab") == "fab"
    assert multibase.encode(multibase.BASE32, b"\xab") == "bvm"
    assert multibase.encode(multibase.BASE36, b"\xab") == "k4r"
    assert multibase.encode(multibase.BASE58BTC, b"\xab") == "z3x"
    assert multibase.encode(multibase.BASE64URL, b"\xab") == "uqw"


@settings(deadline=None)
@given(st.sampled_from(NAMES), st.binary(max_size=100))
def test_round_trip(name: str, data: bytes) -> None:
    text = multibase.encode(name, data)
    assert multibase.decode(text) == data
    assert multibase.encode(name, memoryview(data)) == text


@settings(deadline=None)
@given(st.sampled_from(PREFIXES), st.text(max_size=20) | st.text("01aAzZ=-_+/7", max_size=20))
def test_garbage_raises_or_has_one_spelling(prefix: str, text: str) -> None:
    try:
        data = multibase.decode(prefix + text)
    except RemoteError:
        return
    # Nothing but the case of letters may have been lost.
    assert multibase.encode(prefix, data).lower() == (prefix + text).lower()


@pytest.mark.parametrize(
    "text",
    [
        "",
        " bvm",
        "1",
        "Qm",
        "/",
        "\0ab",
        "x00",
        # Foreign characters: what int() would take, other scripts, other alphabets.
        "01111_0000",
        "0-1",
        "0+1",
        "0 1",
        "01 ",
        "02",
        "78",
        "9a",
        "9-1",
        "9 1",
        "9\u0661",
        "fag",
        "f\u0660\u0660",
        "b1",
        "bmz\n",
        "b\u00e4a",
        "k\u0131",  # its upper case is I
        "z0",
        "zO",
        "zI",
        "zl",
        "m-",
        "maa_a",
        "u+a",
        "uaa/a",
        # Padding where there is none, or the wrong amount of it.
        "bmy======",
        "mYQ==",
        "cmy",
        "cmy=====",
        "cmy=======",
        "c=",
        "c========",
        "cm======y",
        "MYQ",
        "MYQ=",
        "MYQ===",
        "M====",
        # Characters that carry no whole byte, and bits set where there is no byte.
        "01111111",
        "7777",
        "fa",
        "bm",
        "baaa",
        "baaaaaa",
        "bmz",
        "uq",
        "uqx",
        "MYR==",
        "cmz======",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        multibase.decode(text)


@pytest.mark.parametrize("base", ["", "base1", "x", "B32", "base58"])
def test_unknown_names(base: str) -> None:
    with pytest.raises(LocalError, match="unknown multibase"):
        multibase.encode(base, b"")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        (b"\0", "1"),
        (b"\0\0\x01", "112"),
        (b"9", "z"),
        (b":", "21"),
        (b"Hello World!", "2NEpo7TZRRrLZSi2U"),
        (b"\0\0\x28\x7f\xb4\xcd", "11233QC4"),
        (b"\xff" * 32, "JEKNVnkbo3jma5nREBBJCDoXFVeKkD56V3xKrvRmWxFG"),
    ],
)
def test_base58_without_prefix(data: bytes, text: str) -> None:
    assert multibase.b58encode(data) == text
    assert multibase.b58decode(text) == data
    assert multibase.encode("z", data) == "z" + text


@pytest.mark.parametrize("text", ["0", "O", "I", "l", " 1", "1 ", "-1", "\u0661"])
def test_base58_refuses(text: str) -> None:
    with pytest.raises(DecodeError):
        multibase.b58decode(text)


@pytest.mark.parametrize("base", ["base10", "base36", "base36upper", "base58btc", "base58flickr"])
def test_row_24_big_numbers_are_bounded(base: str) -> None:
    most = b"\xff" * multibase.MAX_NUMBER_DATA
    text = multibase.encode(base, most)
    assert multibase.decode(text) == most
    with pytest.raises(LocalError, match="limit"):
        multibase.encode(base, most + b"\0")
    longest = text[0] + text[1] * multibase.MAX_NUMBER_TEXT
    multibase.decode(longest)
    with pytest.raises(DecodeError, match="limit"):
        multibase.decode(longest + text[1])


def test_row_24_the_bound_of_base_10_is_exact() -> None:
    text = multibase.encode("9", b"\xff" * multibase.MAX_NUMBER_DATA)
    assert len(text) == 1 + multibase.MAX_NUMBER_TEXT


@pytest.mark.parametrize("prefix", PREFIXES)
def test_row_24_a_megabyte_of_text(prefix: str) -> None:
    # Linear bases decode it at once, the others refuse it; quadratic work would take minutes.
    text = prefix + multibase.encode(prefix, b"\x01")[1] * 1_000_000
    if prefix in "9kKzZ":
        with pytest.raises(DecodeError, match="limit"):
            multibase.decode(text)
    else:
        with suppress(DecodeError):  # a million characters need not be whole bytes
            assert len(multibase.decode(text)) >= 125_000
