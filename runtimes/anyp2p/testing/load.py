"""Many connections at once."""

from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any

from anyp2p_core.limits import Limits

from .kit import Kit, open_descriptors

CONNECTIONS = 1000
HOSTS = 20


async def a_thousand_connections(kit: Kit) -> None:
    """A thousand connections between twenty hosts and one, open at once, all closed in order.

    Needs 2,200 file descriptors; where there are fewer it makes fewer connections.
    """
    size = min(CONNECTIONS, (_descriptors_left() - 50) // 2) // HOSTS
    limits = Limits(
        max_connections=2 * CONNECTIONS,
        max_inbound_connections=2 * CONNECTIONS,
        max_connections_per_peer=2 * CONNECTIONS,
        max_pending_inbound=2 * CONNECTIONS // HOSTS,
        dial_timeout=60.0,
        upgrade_timeout=60.0,
        close_timeout=60.0,
    )
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(kit.server(limits=limits))
        [address] = server.node.addresses  # without the peer id each dial makes a connection
        clients = []
        for number in range(1, HOSTS + 1):
            client = await stack.enter_async_context(kit.host(limits=limits))
            clients.append(client)
            await kit.loop.together(*[partial(client.connect, address)] * size)
            await kit.eventually(
                partial(_has, server, number * size), "a connection is missing at the listener"
            )
        for client in clients:
            assert len(client.node.connections()) == size
            assert await client.ping(server.peer_id) >= 0
        await kit.loop.together(*[partial(client.disconnect, server.peer_id) for client in clients])
        await kit.eventually(partial(_has, server, 0), "a connection is left over")
        assert await clients[0].connect(address) == server.peer_id
        assert await clients[0].ping(server.peer_id) >= 0


def _has(host: Any, count: int) -> bool:
    return len(host.node.connections()) == count


def _descriptors_left() -> int:
    """File descriptors that we may still open, after asking for as many as we may get."""
    try:
        import resource
    except ImportError:
        return 400
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = open_descriptors() + 2 * CONNECTIONS + 200
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if soft == resource.RLIM_INFINITY else soft - open_descriptors()


CHECKS = (a_thousand_connections,)
