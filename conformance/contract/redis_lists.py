"""Redis lists for the transport contract: what a listener says once, and one dialer takes.

    *2 $3 DEL $n key             ->  :0      what an earlier run left under that name
    *3 $5 RPUSH $n key $n value  ->  :1
    *3 $5 BLPOP $n key $1 1      ->  *2 $n key $n value, or *-1 when the second is over

The tests' own documents say SET and GET, but their programs use lists. ``take`` copes with both.
"""

from typing import BinaryIO

from redis_client import Redis, RedisError

Reply = str | None | list["Reply"]

STEP = 1
"""Seconds that the server waits for the other side at a time; then a value that was SET is seen."""


class RedisLists(Redis):
    """A server as "host:port"."""

    def put(self, key: str, value: str) -> None:
        """Make the value the only one in the list."""
        self._command("DEL", key)
        self._command("RPUSH", key, value)

    def take(self, key: str) -> str | None:
        """The value, None if there is none within ``STEP`` seconds."""
        try:
            reply = self._command("BLPOP", key, str(STEP))
        except RedisError as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
            return self.get(key)
        return str(reply[1]) if isinstance(reply, list) else None

    def _command(self, *words: str) -> Reply:
        request = b"*%d\r\n" % len(words)
        for data in (word.encode() for word in words):
            request += b"$%d\r\n%s\r\n" % (len(data), data)
        with self._connect() as connection, connection.makefile("rb") as answer:
            connection.sendall(request)
            return _reply(answer)


def _reply(answer: BinaryIO) -> Reply:
    line = answer.readline()
    kind, rest = line[:1], line[1:].strip().decode()
    if kind in (b"+", b":"):
        return rest
    if kind not in (b"$", b"*"):
        raise RedisError(rest or "the connection was closed")
    size = int(rest)
    if size < 0:
        return None
    if kind == b"*":
        return [_reply(answer) for _ in range(size)]
    return answer.read(size + 2)[:-2].decode()
