"""What people do by mistake gets a sentence, and harms nobody."""

import os
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from anyp2p_core.errors import LocalError

from .kit import LOOPBACK, Kit


async def not_started(kit: Kit) -> None:
    """A host that was never started says so; closing it is harmless."""
    host = kit.host()
    for call in (
        lambda: host.connect("/ip4/127.0.0.1/tcp/1"),
        lambda: host.listen(LOOPBACK),
        lambda: host.ping("/ip4/127.0.0.1/tcp/1"),
        lambda: host.open_stream("/ip4/127.0.0.1/tcp/1", "/echo/1.0.0"),
    ):
        error = await kit.fails(LocalError, call)
        assert "not started" in str(error)
    await host.close()
    host.set_handler("/x/1", _nothing)
    async with host:
        pass


async def closed(kit: Kit) -> None:
    """A closed host says so, and cannot be started again."""
    async with kit.host() as host:
        pass
    await host.close()
    error = await kit.fails(LocalError, lambda: host.connect("/ip4/127.0.0.1/tcp/1"))
    assert "closed" in str(error)

    async def again() -> None:
        async with host:
            pass

    await kit.fails(LocalError, again)


async def two_hosts_in_one_loop(kit: Kit) -> None:
    """They are strangers to each other: one may end, the other one goes on."""
    async with kit.pair() as pair:
        async with kit.server() as third:
            await pair.client.connect(third.addresses[0])
            assert len(pair.client.peers) == 2
        await kit.eventually(lambda: len(pair.client.peers) == 1, "the third one is still there")
        await pair.works()


async def another_thread(kit: Kit) -> None:
    """Calls from a thread other than the loop's are refused before they change anything."""
    async with kit.pair() as pair:
        stream = await pair.open()
        outcome: list[Any] = []

        def call(function: Any) -> None:
            try:
                function().send(None)
            except BaseException as error:
                outcome.append(error)

        calls = (
            lambda: pair.client.ping(pair.peer),
            lambda: pair.client.connect(pair.server.addresses[0]),
            lambda: pair.client.close(),
            lambda: stream.write(b"x"),
            lambda: stream.read(),
            lambda: stream.close(),
        )
        for function in calls:
            thread = threading.Thread(target=call, args=(function,))
            thread.start()
            thread.join()
        assert len(outcome) == len(calls)
        for error in outcome:
            assert isinstance(error, LocalError) and "thread" in str(error), error
        await stream.write(b"fine")
        assert await stream.readexactly(4) == b"fine"
        await stream.close()
        await pair.works()


async def forked_child(kit: Kit) -> None:
    """A child process may not use its parent's host: it would repeat the parent's nonces."""
    if not hasattr(os, "fork"):
        return
    async with kit.pair() as pair:
        stream = await pair.open()
        read_end, write_end = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which we leave alone
            child = os.fork()
        if not child:
            _in_child(pair, stream, write_end)
        os.close(write_end)
        with open(read_end, "rb") as pipe:
            said = pipe.read().decode()
        os.waitpid(child, 0)
        assert said == "all refused", said
        await stream.write(b"fine")
        assert await stream.readexactly(4) == b"fine"
        await stream.close()
        await pair.works()


def _in_child(pair: Any, stream: Any, pipe: int) -> None:
    said = "all refused"
    try:
        calls: tuple[Callable[[], Any], ...] = (
            lambda: pair.client.ping(pair.peer),
            lambda: pair.client.connect(pair.server.addresses[0]),
            lambda: stream.write(b"x"),
            lambda: stream.read(),
        )
        for call in calls:
            try:
                call().send(None)
            except LocalError as error:
                if "forked" not in str(error):
                    said = f"it said {error}"
            except BaseException as error:
                said = f"it raised {error!r}"
        with suppress(StopIteration):
            pair.client.close().send(None)
    except BaseException as error:
        said = f"it raised {error!r}"
    finally:
        os.write(pipe, said.encode())
        os._exit(0)


async def wrong_arguments(kit: Kit) -> None:
    """Errors say what is wrong, at once, and leave the stream usable."""
    async with kit.pair() as pair:
        stream = await pair.open()
        for call in (
            lambda: stream.write("text"),
            lambda: pair.client.open_stream(pair.peer),
            lambda: pair.client.connect("/p2p/" + str(pair.client.peer_id)),
            lambda: pair.client.disconnect("/ip4/127.0.0.1/tcp/1"),
        ):
            await kit.fails(Exception, call)
        await stream.write(b"fine")
        assert await stream.readexactly(4) == b"fine"
        await stream.close()
        await kit.nobody_waits(pair.client)


async def _nothing(stream: Any) -> None:
    pass


CHECKS = (
    not_started,
    closed,
    two_hosts_in_one_loop,
    another_thread,
    forked_child,
    wrong_arguments,
)
