"""The two Redis commands that test contracts use: SET and GET, over a connection each.

    *3 $3 SET $n key $n value  ->  +OK
    *2 $3 GET $n key           ->  $n value, or $-1 if there is none

It imports nothing but the standard library: programs on other libraries use it, too.
"""

import socket

TIMEOUT = 10.0


class RedisError(Exception):
    """The server refused, or is no Redis server."""


class Redis:
    """A server as "host:port"."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._address = (host, int(port))

    def own_ip(self) -> str:
        """The address of this machine in the server's network."""
        with self._connect() as connection:
            ip: str = connection.getsockname()[0]
        return ip

    def set(self, key: str, value: str) -> None:
        self._ask("SET", key, value)

    def get(self, key: str) -> str | None:
        return self._ask("GET", key)

    def _connect(self) -> socket.socket:
        return socket.create_connection(self._address, TIMEOUT)

    def _ask(self, *words: str) -> str | None:
        request = b"*%d\r\n" % len(words)
        for data in (word.encode() for word in words):
            request += b"$%d\r\n%s\r\n" % (len(data), data)
        with self._connect() as connection, connection.makefile("rb") as answer:
            connection.sendall(request)
            line = answer.readline()
            kind, rest = line[:1], line[1:].strip().decode()
            if kind == b"+":
                return rest
            if kind != b"$":
                raise RedisError(rest or "the connection was closed")
            size = int(rest)
            return None if size < 0 else answer.read(size).decode()
