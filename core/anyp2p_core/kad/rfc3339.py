"""Times in text, as records carry them: 2024-01-02T03:04:05.006000000Z.

https://www.rfc-editor.org/rfc/rfc3339

    YYYY-MM-DD T hh:mm:ss [. 1 to 9 digits] (Z | (+|-)hh:mm)

A time is a number of nanoseconds since 1970, as exact as the text. No library of the standard
reads nanoseconds, and some raise OverflowError for what a peer may write.
"""

from ..errors import DecodeError, LocalError

SECOND = 10**9
MAX_TEXT = 35
"""The longest spelling: nine decimals and an offset."""

_DAY = 86_400
_MONTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_SHAPE = "0000-00-00T00:00:00"


def parse(text: str) -> int:
    """Nanoseconds since 1970; DecodeError for anything but a time that exists.

    >>> parse("1970-01-01T00:00:01.5Z")
    1500000000
    """
    if len(text) > MAX_TEXT or not text.isascii() or not _has_shape(text):
        raise DecodeError(f"{text[:40]!r} is not a time as in RFC 3339")
    year, month, day = int(text[:4]), int(text[5:7]), int(text[8:10])
    hour, minute, second = int(text[11:13]), int(text[14:16]), int(text[17:19])
    rest = text[19:]
    nanoseconds = 0
    if rest.startswith("."):
        digits = len(rest) - 1 - len(rest[1:].lstrip("0123456789"))
        if not 1 <= digits <= 9:
            raise DecodeError(f"{text!r}: 1 to 9 decimals are allowed")
        nanoseconds = int(rest[1 : 1 + digits].ljust(9, "0"))
        rest = rest[1 + digits :]
    offset = _offset(rest, text)
    if (
        not (year >= 1 and 1 <= month <= 12 and 1 <= day <= _days_in(year, month))
        or hour > 23
        or minute > 59
        or second > 59
    ):
        raise DecodeError(f"{text!r} does not exist")
    seconds = _days(year, month, day) * _DAY + hour * 3600 + minute * 60 + second - offset
    return seconds * SECOND + nanoseconds


def spell(nanoseconds: int) -> str:
    """The text of a time, in UTC with nine decimals; LocalError outside the years 1 to 9999.

    >>> spell(1500000000)
    '1970-01-01T00:00:01.500000000Z'
    """
    seconds, rest = divmod(nanoseconds, SECOND)
    days, time = divmod(seconds, _DAY)
    # Count from 1 March of the year 0, so that the leap day comes last in its year.
    era, day = divmod(days + 719_468, 146_097)
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    day -= (153 * month + 2) // 5
    month += 3 if month < 10 else -9
    year += era * 400 + (month <= 2)
    if not 1 <= year <= 9999:
        raise LocalError(f"{nanoseconds} ns since 1970 is not within the years 1 to 9999")
    date = f"{year:04}-{month:02}-{day + 1:02}"
    return f"{date}T{time // 3600:02}:{time // 60 % 60:02}:{time % 60:02}.{rest:09}Z"


def _has_shape(text: str) -> bool:
    return len(text) > len(_SHAPE) and all(
        here.isdigit() if shape == "0" else here == shape
        for here, shape in zip(text, _SHAPE, strict=False)
    )


def _offset(rest: str, text: str) -> int:
    """Seconds east of UTC."""
    if rest == "Z":
        return 0
    digits = rest[1:3] + rest[4:]
    if len(rest) != 6 or rest[0] not in "+-" or rest[3] != ":" or not digits.isdigit():
        raise DecodeError(f"{text!r} ends neither in Z nor in an offset")
    hours, minutes = int(rest[1:3]), int(rest[4:])
    if hours > 23 or minutes > 59:
        raise DecodeError(f"{text!r}: there is no such offset")
    seconds = hours * 3600 + minutes * 60
    return seconds if rest[0] == "+" else -seconds


def _is_leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def _days_in(year: int, month: int) -> int:
    return 29 if month == 2 and _is_leap(year) else _MONTHS[month - 1]


def _days(year: int, month: int, day: int) -> int:
    """Days since 1970."""
    before = year - 1
    days = before * 365 + before // 4 - before // 100 + before // 400 - 719_162
    days += sum(_MONTHS[: month - 1]) + (month > 2 and _is_leap(year))
    return days + day - 1
