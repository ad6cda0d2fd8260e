"""Who plays a role of the transport contract: a program, or a peer of the matrix in its place.

Program       its environment says all; it ends by itself, or is killed as the suites do
StandIn       a peer that runs already; what a program says to Redis is said for it here
SetListener   our program, with its address under SET, as the documents of the suites have it
"""

import asyncio
import ipaddress
import os
import re
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

from contracts import CONTRACT
from peer import Peer, PeerFailed

sys.path.append(str(CONTRACT))
from redis_lists import RedisLists

UNIFIED, TEST_PLANS = "unified", "test-plans"
ROLE = {UNIFIED: "IS_DIALER", TEST_PLANS: "is_dialer"}
NUMBER = r"(\d+(?:\.\d+)?)"
RESULT = {
    UNIFIED: f"latency:\n  handshake_plus_one_rtt: {NUMBER}\n  ping_rtt: {NUMBER}\n  unit: ms\n",
    TEST_PLANS: f'{{"handshakePlusOneRTTMillis":{NUMBER},"pingRTTMilllis":{NUMBER}}}\n',
}
"""All that a dialer may say on stdout: milliseconds."""
TAIL = 8


class RunFailed(Exception):
    """What went wrong, in the first line; then what was said on stderr."""


@dataclass(slots=True)
class Run:
    """One run of the contract."""

    suite: str
    combination: str
    """As transport+security+muxer, or the transport alone."""
    key: str
    redis: str
    seconds: int

    @property
    def transport(self) -> str:
        return self.combination.partition("+")[0]

    @property
    def place(self) -> str:
        """The key of the listener's address."""
        return f"{self.key}_listener_multiaddr" if self.suite == UNIFIED else "listenerAddr"

    def environment(self, *, dials: bool) -> dict[str, str]:
        """What the suite sets, and nothing that it does not."""
        transport, *channel = self.combination.split("+")
        values = {"transport": transport, "redis": self.redis, "seconds": str(self.seconds)}
        values |= dict(zip(("security", "muxer"), channel, strict=False))
        names = {
            UNIFIED: {
                "transport": "TRANSPORT",
                "security": "SECURE_CHANNEL",
                "muxer": "MUXER",
                "redis": "REDIS_ADDR",
                "seconds": "TEST_TIMEOUT_SECS",
            },
            TEST_PLANS: {
                "transport": "transport",
                "security": "security",
                "muxer": "muxer",
                "redis": "redis_addr",
                "seconds": "test_timeout_seconds",
            },
        }[self.suite]
        found = {names[name]: value for name, value in values.items()}
        found[ROLE[self.suite]] = "true" if dials else "false"
        if self.suite == UNIFIED:
            return found | {"LISTENER_IP": "0.0.0.0", "TEST_KEY": self.key, "DEBUG": "false"}
        return found | {"ip": "0.0.0.0"}


class Player(Protocol):
    """Somebody who can play at least one of the roles."""

    name: str

    def lacks(self, run: Run, *, dials: bool) -> str | None:
        """Why he cannot."""

    async def listen(self, run: Run) -> None:
        """Until it is cancelled. RunFailed if it ends before."""

    async def dial(self, run: Run) -> tuple[float, float]:
        """The two times, in milliseconds. RunFailed if it has none."""


class Program:
    """A program that follows the contract."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self._command = command

    def lacks(self, run: Run, *, dials: bool) -> str | None:
        return None

    async def listen(self, run: Run) -> None:
        code, _, said = await self.play(run, dials=False)
        raise RunFailed(f"the listener ended with {code}\n{said}")

    async def dial(self, run: Run) -> tuple[float, float]:
        code, output, said = await self.play(run, dials=True)
        if code:
            raise RunFailed(f"the dialer ended with {code}\n{said}")
        found = re.fullmatch(RESULT[run.suite], output)
        if found is None:
            raise RunFailed(f"stdout is not what the suite reads: {output!r}\n{said}")
        both, ping = map(float, found.groups())
        if not both > ping > 0:
            raise RunFailed(f"{both} ms with, and {ping} ms for the ping alone")
        return both, ping

    async def play(self, run: Run, *, dials: bool) -> tuple[int, str, str]:
        """Run it to its end: exit code, stdout, stderr. If cancelled, it is killed."""
        process = await asyncio.create_subprocess_exec(
            *self._command,
            env=dict(os.environ) | run.environment(dials=dials),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            output, said = await process.communicate()
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        lines = said.decode(errors="replace").strip().splitlines()[-TAIL:]
        assert process.returncode is not None
        return process.returncode, output.decode(errors="replace"), "\n".join(lines)


class StandIn:
    """A peer of the matrix."""

    def __init__(self, peer: Peer) -> None:
        self.name = peer.name
        self._peer = peer

    def lacks(self, run: Run, *, dials: bool) -> str | None:
        if dials and run.transport == "wss":
            return "the peers of the matrix verify certificates, the programs of the suites do not"
        words = run.combination.split("+")
        return next((self._peer.cannot[word] for word in words if word in self._peer.cannot), None)

    async def listen(self, run: Run) -> None:
        RedisLists(run.redis).put(run.place, self._peer.address_of(run.transport))
        await asyncio.Event().wait()

    async def dial(self, run: Run) -> tuple[float, float]:
        address = await published(run)
        clock = asyncio.get_running_loop().time
        started = clock()
        try:
            answer: dict[str, Any] = await self._peer.call("dial", address=address)
            ping = await self._peer.call("ping", peer=answer["peer"], count=1)
        except PeerFailed as error:
            raise RunFailed(str(error)) from None
        return (clock() - started) * 1e3, ping["rtts"][0] * 1e3


class SetListener:
    """Our program, whose address a dialer does not find in a list."""

    def __init__(self, program: Program) -> None:
        self.name = program.name
        self._program = program

    def lacks(self, run: Run, *, dials: bool) -> str | None:
        return None

    async def listen(self, run: Run) -> None:
        other = replace(run, key=f"{run.key}-list")
        listening = asyncio.create_task(self._program.listen(other))
        try:
            RedisLists(run.redis).set(run.place, await published(other))
            await listening
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def dial(self, run: Run) -> tuple[float, float]:
        return await self._program.dial(run)


async def published(run: Run) -> str:
    """The listener's address. RunFailed if there is none, or one that is no use elsewhere."""
    redis = RedisLists(run.redis)
    for _ in range(run.seconds):
        address = await asyncio.to_thread(redis.take, run.place)
        if address is not None:
            if ipaddress.ip_address(address.split("/")[2]).is_loopback and _elsewhere():
                raise RunFailed(f"others cannot dial {address}")
            return address
    raise RunFailed("the listener did not say where it is")


def _elsewhere() -> bool:
    """Whether this machine has an address besides its loopback."""
    from anyp2p.listening import interface_addresses

    return any(not ipaddress.ip_address(ip).is_loopback for ip in interface_addresses("ip4"))
