"""Times in text, to the nanosecond, whatever a peer writes."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, strategies as st

from anyp2p_core.errors import DecodeError, LocalError
from anyp2p_core.kad.rfc3339 import SECOND, parse, spell

FIRST = parse("0001-01-01T00:00:00Z")
LAST = parse("9999-12-31T23:59:59.999999999Z")

TIMES = [
    ("1970-01-01T00:00:00Z", 0),
    ("1970-01-01T00:00:00.000000001Z", 1),
    ("1969-12-31T23:59:59.5Z", -SECOND // 2),
    ("2024-01-02T03:04:05.006000000Z", 1704164645_006000000),
    ("2024-02-29T00:00:00Z", 1709164800 * SECOND),
    ("2000-02-29T00:00:00Z", 951782400 * SECOND),
    ("1970-01-01T01:00:00+01:00", 0),
    ("1969-12-31T22:29:59.9-01:30", -SECOND // 10),
    ("0001-01-01T00:00:00Z", -62135596800 * SECOND),
]
WRONG = [
    "", "Z", "1970-01-01", "1970-01-01T00:00:00", "1970-01-01 00:00:00Z", "1970-1-01T00:00:00Z",
    "1970-01-01T00:00:00.Z", "1970-01-01T00:00:00.0000000001Z", "1970-01-01T00:00:00z",
    "1970-01-01T00:00:00+0100", "1970-01-01T00:00:00+01:0x", "1970-01-01T00:00:00 01:00",
    "1970-01-01T00:00:00+24:00", "1970-01-01T00:00:00+00:60", "1970-01-01T00:00:00Z ",
    "1970-01-01T24:00:00Z", "1970-01-01T00:60:00Z", "1970-01-01T00:00:60Z",
    "0000-01-01T00:00:00Z", "1970-00-01T00:00:00Z", "1970-13-01T00:00:00Z",
    "1970-01-00T00:00:00Z", "1970-01-32T00:00:00Z", "1970-02-29T00:00:00Z", "1900-02-29T00:00:00Z",
    "9999999999-13-40", "\u0661970-01-01T00:00:00Z", "1970-01-01T00:00:00.\u0661Z",
    "-970-01-01T00:00:00Z", "1970-01-01T00:00:00+" + "0" * 1000, "1" * 1000, "\ufffd" * 20,
]  # fmt: skip


@pytest.mark.parametrize(("text", "nanoseconds"), TIMES)
def test_times(text, nanoseconds):
    assert parse(text) == nanoseconds
    assert parse(spell(nanoseconds)) == nanoseconds


@pytest.mark.parametrize("text", WRONG)
def test_row_87_times_that_are_none(text):
    with pytest.raises(DecodeError):
        parse(text)


@pytest.mark.parametrize("nanoseconds", [FIRST - 1, LAST + 1, 2**63, -(2**63), 2**64 - 1, 10**30])
def test_row_87_times_that_have_no_text(nanoseconds):
    if FIRST <= nanoseconds <= LAST:  # 2**63 ns are the year 2262
        assert parse(spell(nanoseconds)) == nanoseconds
    else:
        with pytest.raises(LocalError):
            spell(nanoseconds)


@given(st.integers(FIRST, LAST))
def test_agrees_with_datetime(nanoseconds):
    text = spell(nanoseconds)
    seconds = nanoseconds // SECOND
    same = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    assert text[:19] == same.replace(tzinfo=None).isoformat()
    assert parse(text) == nanoseconds
    assert parse(f"{text[:19]}Z") == seconds * SECOND


@given(st.text())
def test_garbage(text):
    with suppress(DecodeError):
        parse(text)
