"""The listening sockets of a ``SocketHost``, with a task for each.

accept -> taken: the host serves it
       -> nothing there, or a few were taken: wait until the socket is readable
       -> the process has no descriptor left, or another error: wait half a second
"""

import logging
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from anyp2p_core.multiaddr import Multiaddr

from .link import Link
from .sockets import ACCEPT_PAUSE, BLOCKED, bound_addresses, forget_name

if TYPE_CHECKING:
    from .socket_host import SocketHost

log = logging.getLogger("anyp2p")

TURNS = 4
"""Accepts in a row before other tasks get their turn."""


class Acceptor:
    """``host`` serves what is accepted."""

    def __init__(self, host: "SocketHost[Any]") -> None:
        self._host = host
        self._listeners: list[Link] = []

    def open(self, sockets: Iterable[socket.socket]) -> list[Multiaddr]:
        """Accept on listening sockets; returns where they are."""
        host = self._host
        links = [host.new_link(sock) for sock in sockets]
        self._listeners += links
        for link in links:
            host._spawn(self._accept, link)
        return bound_addresses(link.sock for link in links)

    def stop(self) -> None:
        """Accept no more."""
        for link in self._listeners:
            forget_name(link.sock)
            link.abort()
        self._listeners.clear()

    async def _accept(self, listener: Link) -> None:
        host = self._host
        turns = 0
        try:
            while not listener.aborted:
                try:
                    sock, _ = listener.sock.accept()
                except BLOCKED:
                    turns = TURNS
                except OSError as error:
                    if not listener.aborted:
                        log.warning("cannot accept a connection: %s; trying again", error)
                        await self._pause(ACCEPT_PAUSE)
                else:
                    host.accepted(sock)
                    turns += 1
                if turns >= TURNS:
                    turns = 0
                    await host._wait_readable(listener.sock)
        finally:
            host.release(listener)

    async def _pause(self, seconds: float) -> None:
        host = self._host
        event = host.make_event()
        timer = host.node.call_at(host.now() + seconds, "pause", lambda now: event.set())
        host.flush()
        try:
            await event.wait()
        finally:
            host.node.cancel(timer)
