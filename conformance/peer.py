"""Runs one peer program and speaks PROTOCOL.md with it: one JSON object per line.

harness                         peer
   |  start: run --listen ... --key ...  |
   |<-- {"event":"ready", ...} ----------|
   |--- {"id":1,"cmd":"ping", ...} ----->|
   |<-- {"event":"stream_reset", ...} ---|   any time
   |<-- {"id":1,"ok":true, ...} ---------|   any order
   |  close stdin; kill after 3 s        |
"""

import asyncio
import json
import os
import signal
from collections import deque
from contextlib import suppress
from typing import Any

from building import NOT_HERE, Built

Message = dict[str, Any]

START_TIMEOUT = 30.0
COMMAND_TIMEOUT = 65.0
"""A little more than the 60 s after which a peer gives up by itself."""
STOP_TIMEOUT = 3.0
LONGEST_LINE = 4 << 20
STDERR_LINES = 200


class PeerFailed(Exception):
    """The peer answered with an error, broke the protocol, was too slow or is gone."""


class PeerNotHere(PeerFailed):
    """The peer says that it lacks something on this machine; the message names it."""


class Peer:
    """A running peer program. Use :meth:`start`, and :meth:`stop` whatever happens."""

    def __init__(self, built: Built, process: asyncio.subprocess.Process, label: str) -> None:
        self.name = built.spec.name
        self.label = label
        self.cannot = built.spec.cannot
        self.id = ""
        self.addresses: list[str] = []
        self.agent = ""
        self.implementation = ""
        self.stderr: deque[str] = deque(maxlen=STDERR_LINES)
        self._process = process
        self._last_id = 0
        self._answers: dict[int, asyncio.Future[Message]] = {}
        self._events: deque[Message] = deque(maxlen=1000)
        self._news = asyncio.Condition()
        self._over = ""
        self._tasks = [
            asyncio.create_task(self._read_answers()),
            asyncio.create_task(self._read_stderr()),
        ]

    @classmethod
    async def start(
        cls, built: Built, *, key: str = "ed25519", extra: tuple[str, ...] = (), label: str = ""
    ) -> "Peer":
        """Run the program and wait for its ready line. ``label`` names it in messages."""
        label = label or built.spec.name
        label = label if key == "ed25519" else f"{label} ({key})"
        try:
            process = await asyncio.create_subprocess_exec(
                *built.command,
                *("--listen", "/ip4/127.0.0.1/tcp/0", "--key", key, *extra),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=built.environment,
                limit=LONGEST_LINE,
                start_new_session=True,
            )
        except OSError as error:
            raise PeerFailed(f"{label}: {built.command[0]}: {error.strerror}") from error
        peer = cls(built, process, label)
        try:
            ready = await peer.event("ready", timeout=START_TIMEOUT)
            peer.id, peer.addresses = ready["peer"], ready["addresses"]
            peer.agent, peer.implementation = ready["agent"], ready["implementation"]
            if not peer.addresses:
                raise PeerFailed(f"{label}: the ready line has no address")
        except (PeerFailed, KeyError) as error:
            await peer.stop()
            if process.returncode == NOT_HERE and peer.stderr:
                raise PeerNotHere(f"{label}: {peer.stderr[-1]}") from None
            reason = f"the ready line lacks {error}" if isinstance(error, KeyError) else str(error)
            tail = "".join(f"\n    {line}" for line in list(peer.stderr)[-10:])
            raise PeerFailed(f"{label}: {reason.removeprefix(f'{label}: ')}{tail}") from None
        except BaseException:
            await peer.stop()
            raise
        return peer

    @property
    def alive(self) -> bool:
        return not self._over

    @property
    def address(self) -> str:
        """The first listening address, with /p2p/ID at its end."""
        address = self.addresses[0]
        return address if "/p2p/" in address else f"{address}/p2p/{self.id}"

    def address_of(self, transport: str) -> str:
        """Where it listens on tcp, ws, wss or quic-v1, with /p2p/ID at its end."""
        for address in self.addresses:
            address = address if "/p2p/" in address else f"{address}/p2p/{self.id}"
            if _transport(address) == transport:
                return address
        raise PeerFailed(f"{self.label} does not listen on {transport}: {self.addresses}")

    async def call(
        self, command: str, *, timeout: float = COMMAND_TIMEOUT, **arguments: Any
    ) -> Message:
        """Send a command and return its answer; PeerFailed if that is not ok."""
        if self._over:
            raise PeerFailed(f"{self.label} {command}: {self._over}")
        self._last_id += 1
        number = self._last_id
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        line = json.dumps({"id": number, "cmd": command} | arguments)
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(line.encode() + b"\n")
            with suppress(ConnectionError):  # the end of its output tells the reason
                await self._process.stdin.drain()
            async with asyncio.timeout(timeout):
                message: Message = await answer
        except TimeoutError:
            raise PeerFailed(f"{self.label} {command}: no answer in {timeout:.0f} s") from None
        finally:
            del self._answers[number]
        if message.get("ok") is not True:
            raise PeerFailed(f"{self.label} {command}: {message.get('error', message)}")
        return message

    async def event(self, *names: str, timeout: float = 10.0, **fields: Any) -> Message:
        """Take the first event with one of these names and these fields, past or to come."""

        def find() -> Message | None:
            for event in self._events:
                if event["event"] in names and fields.items() <= event.items():
                    self._events.remove(event)
                    return event
            return None

        try:
            async with asyncio.timeout(timeout), self._news:
                while (event := find()) is None:
                    if self._over:
                        raise PeerFailed(f"{self.label}: {self._over}")
                    await self._news.wait()
                return event
        except TimeoutError:
            raise PeerFailed(
                f"{self.label}: no event {' or '.join(names)} in {timeout:.0f} s"
            ) from None

    def forget_events(self) -> None:
        """Drop the events nobody took, so that :meth:`event` sees only what comes from now on."""
        self._events.clear()

    async def stop(self) -> None:
        """Close its stdin, which ends a sound peer; kill what is left of its process group."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT):
                await self._process.wait()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        await asyncio.wait(self._tasks, timeout=0.5)  # its last words
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _read_answers(self) -> None:
        assert self._process.stdout is not None
        reason = ""
        try:
            while line := await self._process.stdout.readline():
                await self._on_line(line)
        except (ValueError, KeyError, TypeError) as error:
            reason = f"broke the protocol on stdout: {error!r}"
        if not reason:
            reason = f"exited with code {await self._process.wait()}"
            await asyncio.sleep(0)
        await self._end(reason)

    async def _on_line(self, line: bytes) -> None:
        message: Message = json.loads(line)
        if "event" in message:
            async with self._news:
                self._events.append(message)
                self._news.notify_all()
            return
        answer = self._answers.get(message["id"])
        if answer is not None and not answer.done():  # None: it came after its time was up
            answer.set_result(message)

    async def _end(self, reason: str) -> None:
        self._over = reason
        for answer in self._answers.values():
            if not answer.done():
                answer.set_result({"ok": False, "error": reason})
        async with self._news:
            self._news.notify_all()

    async def _read_stderr(self) -> None:
        assert self._process.stderr is not None
        while True:
            try:
                line = await self._process.stderr.readline()
            except ValueError:  # longer than LONGEST_LINE: what follows is still of interest
                continue
            if not line:
                return
            self.stderr.append(line.decode(errors="replace").rstrip())


def _transport(address: str) -> str:
    words = address.partition("/p2p/")[0].split("/")
    if "quic-v1" in words:
        return "quic-v1"
    if "wss" in words or "tls" in words:
        return "wss"
    return "ws" if "ws" in words else "tcp"
