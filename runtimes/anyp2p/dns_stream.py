"""DNS over TCP, for answers that do not fit into a datagram.

Spec: https://www.rfc-editor.org/rfc/rfc7766

    connect -> length, question -> length, answer -> close
        any of them --ended by ``abort`` of its link, or with the host--> OSError
"""

import socket
from typing import TYPE_CHECKING, Any

from .link import Link
from .sockets import BLOCKED

if TYPE_CHECKING:
    from anyp2p_core.dns import Server

    from .socket_host import SocketHost


async def ask(
    host: "SocketHost[Any]", conn: int, links: dict[int, Link], server: "Server", question: bytes
) -> bytes:
    """The answer of a server, by a connection that is in ``links`` while it is open.

    ``conn`` has been announced with ``host.reserve``. Raises OSError.
    """
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    link = links[conn] = await host.reach(conn, [(family, socket.SOCK_STREAM, 0, "", server)])
    try:
        link.send(len(question).to_bytes(2) + question)
        size = await _receive(host, link, 2)
        return await _receive(host, link, int.from_bytes(size))
    finally:
        links.pop(conn, None)
        link.end()
        host.release(link)


async def _receive(host: "SocketHost[Any]", link: Link, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        await host._wait_readable(link.sock)
        try:
            chunk = link.sock.recv(size - len(data))
        except BLOCKED:
            continue
        if not chunk:
            raise OSError("the DNS server closed the connection")
        data += chunk
    return bytes(data)
