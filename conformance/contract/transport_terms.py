"""What the two interop suites call the same things: environment, key in Redis, result on stdout.

            test-plans ("legacy")                unified tests ("modern")
variables   transport security muxer is_dialer   TRANSPORT SECURE_CHANNEL MUXER IS_DIALER
            ip redis_addr test_timeout_seconds   LISTENER_IP REDIS_ADDR TEST_TIMEOUT_SECS
                                                 TEST_KEY DEBUG
key         listenerAddr                         <TEST_KEY>_listener_multiaddr
stdout      {"handshakePlusOneRTTMillis":12.3,   latency:
             "pingRTTMilllis":0.5}                 handshake_plus_one_rtt: 12.3
                                                   ping_rtt: 0.5
                                                   unit: ms

It imports nothing but the standard library: programs on other libraries use it, too.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from redis_lists import RedisLists

TRANSPORTS = ("tcp", "ws", "wss", "quic-v1")
ALONE = ("quic-v1",)
"""Bring security and muxer along: the variables for these are not set, or do not count."""
SECURITY = ("noise", "tls")
MUXERS = ("yamux", "mplex")
TIMEOUT = "180"
POLL = 0.1


class WrongUse(Exception):
    """The environment does not follow the contract."""


@dataclass(slots=True)
class Dialect:
    """The words of one suite."""

    transport: str
    security: str
    muxer: str
    dialer: str
    ip: str
    redis: str
    timeout: str
    report: Callable[[float, float], str]


class Terms:
    """One run of the contract. Its clock starts here."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        """WrongUse says what is missing, or not known."""
        self._environment = environment
        words = LEGACY if LEGACY.transport in environment else MODERN
        self.transport = self._one_of(words.transport, TRANSPORTS)
        self.security = self.muxer = ""
        if self.transport not in ALONE:
            self.security = self._one_of(words.security, SECURITY)
            self.muxer = self._one_of(words.muxer, MUXERS)
        self.dials = self._one_of(words.dialer, ("true", "false")) == "true"
        self.ip = environment.get(words.ip) or "0.0.0.0"
        self.debug = environment.get("DEBUG") == "true"
        if words is LEGACY:
            self._key = "listenerAddr"
            address = environment.get(words.redis) or "redis:6379"
        else:
            self._key = f"{self._needed('TEST_KEY')}_listener_multiaddr"
            address = self._needed(words.redis)
        self.redis = RedisLists(address if ":" in address else f"{address}:6379")
        timeout = environment.get(words.timeout) or TIMEOUT
        try:
            self._end = time.monotonic() + float(timeout)
        except ValueError:
            raise WrongUse(f"{words.timeout}={timeout} is no number of seconds") from None
        self._report = words.report

    def left(self) -> float:
        """Seconds until the time is up."""
        return max(self._end - time.monotonic(), 0.0)

    def await_address(self) -> str:
        """Where the listener is, once it has said so. Blocks. Raises TimeoutError."""
        return self._patiently(lambda: self.redis.take(self._key))

    def own_ip(self) -> str:
        """Our address in the network that Redis is in. Blocks. Raises TimeoutError."""
        return self._patiently(self.redis.own_ip)

    def publish(self, address: str) -> None:
        """Say where the listener is."""
        self.redis.put(self._key, address)

    def report(self, connect_and_ping: float, ping: float) -> None:
        """The result, which is all that stdout may get. Arguments in seconds."""
        print(self._report(connect_and_ping * 1e3, ping * 1e3), flush=True)

    def _patiently(self, question: Callable[[], Any]) -> str:
        """Redis may start after us, and the listener after Redis."""
        problem = "the listener did not say where it is"
        while self.left():
            try:
                if answer := question():
                    return str(answer)
            except OSError as error:
                problem = f"no Redis: {error}"
                time.sleep(POLL)
        raise TimeoutError(problem)

    def _needed(self, name: str) -> str:
        value = self._environment.get(name)
        if not value:
            raise WrongUse(f"{name} is not set")
        return value

    def _one_of(self, name: str, known: tuple[str, ...]) -> str:
        value = self._needed(name)
        if value not in known:
            raise WrongUse(f"{name}={value}: there are {', '.join(known)}")
        return value


def _json(connect_and_ping: float, ping: float) -> str:
    times = {  # three l in the second: that is what is looked for
        "handshakePlusOneRTTMillis": round(connect_and_ping, 3),
        "pingRTTMilllis": round(ping, 3),
    }
    return json.dumps(times, separators=(",", ":"))


def _yaml(connect_and_ping: float, ping: float) -> str:
    return (  # it is read with grep: exactly two spaces
        "latency:\n"
        f"  handshake_plus_one_rtt: {connect_and_ping:.3f}\n"
        f"  ping_rtt: {ping:.3f}\n"
        "  unit: ms"
    )


LEGACY = Dialect(
    transport="transport",
    security="security",
    muxer="muxer",
    dialer="is_dialer",
    ip="ip",
    redis="redis_addr",
    timeout="test_timeout_seconds",
    report=_json,
)
MODERN = Dialect(
    transport="TRANSPORT",
    security="SECURE_CHANNEL",
    muxer="MUXER",
    dialer="IS_DIALER",
    ip="LISTENER_IP",
    redis="REDIS_ADDR",
    timeout="TEST_TIMEOUT_SECS",
    report=_yaml,
)
