"""anyp2p on the loop of `selectors_loop.py`: the worked example of docs/runtime.md."""

import socket
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from selectors import EVENT_READ, EVENT_WRITE
from time import monotonic
from typing import Any

from selectors_loop import Event, Loop, Task

from anyp2p.socket_host import SocketHost
from anyp2p.sockets import AddressInfo
from anyp2p.stream import Stream
from anyp2p_core.peer_id import PeerId


class Host(SocketHost[Stream]):
    """A peer whose code all runs in the loop's thread."""

    def __init__(self, loop: Loop, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._loop = loop
        self._tasks: dict[Task, None] = {}

    # Time.

    def now(self) -> float:
        return monotonic()

    def _set_timer(self, when: float) -> None:
        self._loop.timers[self] = (when, self.on_timer)

    # Tasks.

    def make_event(self) -> Event:
        return Event(self._loop)

    def _spawn(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        task = Task(self._loop, function(*args))
        self._tasks[task] = None
        task.outcome.add_done_callback(lambda _: self._tasks.pop(task))

    async def _start(self) -> None:
        self._prepare()

    async def _stop(self) -> None:
        self._abort_all()
        self._loop.timers.pop(self, None)
        tasks = [task for task in self._tasks if task is not self._loop.current]
        try:
            for task in tasks:
                task.cancel()
            for task in tasks:
                await task.ended.wait()
        finally:
            self._close_all_sockets()

    # Sockets.

    def _wait_readable(self, sock: socket.socket) -> Coroutine[Any, Any, None]:
        return self._loop.wait_for(sock, EVENT_READ)

    def _wait_writable(self, sock: socket.socket) -> Coroutine[Any, Any, None]:
        return self._loop.wait_for(sock, EVENT_WRITE)

    async def _look_up(self, host: str, port: int, family: int) -> Sequence[AddressInfo]:
        answered = self.make_event()
        outcome: Future[Sequence[AddressInfo]] = Future()

        def look_up() -> None:  # getaddrinfo blocks: never in the loop's thread
            try:
                outcome.set_result(socket.getaddrinfo(host, port, family, socket.SOCK_STREAM))
            except OSError as error:
                outcome.set_exception(error)
            self._loop.call(answered.set)

        threading.Thread(target=look_up, daemon=True).start()
        await answered.wait()
        return outcome.result()

    def _make_stream(self, stream: int, peer: PeerId, protocol: str, inbound: bool) -> Stream:
        return Stream(self, stream, peer, protocol, inbound)
