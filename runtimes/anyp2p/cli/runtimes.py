"""Which event loop runs a command: a name, where its host is, and how to run on it.

    run("trio", main)
      main(host_class)      the same coroutine function on every loop
      Ctrl-C                ends what ``main`` waits for, as cancelling does there: its ``finally``
                            blocks run and hosts are closed; then run() raises KeyboardInterrupt

To add a runtime, give it an entry in ``_KNOWN``: a host with the methods of ``BaseHost``, and a
function that runs ``main(host_class)`` to its end and treats Ctrl-C in that way. An interrupt must
never be raised in whatever task happens to run: that could be the host's own, in the middle of a
change. In a thread other than the main one there are no interrupts.
"""

from collections.abc import Callable, Coroutine
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from anyp2p.host import BaseHost

T = TypeVar("T")
HostClass = Callable[..., "BaseHost[Any]"]
Main = Callable[[HostClass], Coroutine[Any, Any, T]]


class Runtime(NamedTuple):
    """How commands run on one kind of event loop."""

    module: str
    run: Callable[[Main[Any], HostClass], Any]
    needs: str = ""
    """The package to install, also the name of the extra."""
    host: str = "Host"
    """The awaitable host of ``module``."""


def run(name: str, main: "Main[T]") -> T:
    """Run ``main(host_class)`` on a runtime; returns what it returns."""
    from .failures import Failure

    if not installed(name):
        raise Failure(
            f"the {name} runtime needs the '{_KNOWN[name].needs}' package: {install(name)}"
        )
    runtime = _KNOWN[name]
    host_class = getattr(import_module(runtime.module), runtime.host)
    try:
        result: T = runtime.run(main, host_class)
    except BaseExceptionGroup as group:  # trio and anyio wrap what ends a nursery
        raise _only(group) from None
    return result


def available() -> list[str]:
    """Runtimes whose packages are installed."""
    return [name for name in _KNOWN if installed(name)]


def installed(name: str) -> bool:
    """Whether the package that a runtime needs is there."""
    from importlib.util import find_spec

    needs = _KNOWN[name].needs
    return not needs or find_spec(needs) is not None


def install(name: str) -> str:
    """The command that installs what a runtime needs."""
    return f"pip install 'anyp2p[{_KNOWN[name].needs}]'"


def _asyncio(main: Main[Any], host_class: HostClass) -> Any:
    import asyncio

    with asyncio.Runner() as runner:
        return runner.run(main(host_class))


def _uvloop(main: Main[Any], host_class: HostClass) -> Any:
    import asyncio

    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main(host_class))


def _trio(main: Main[Any], host_class: HostClass) -> Any:
    import trio

    return trio.run(main, host_class, restrict_keyboard_interrupt_to_checkpoints=True)


def _anyio(main: Main[Any], host_class: HostClass) -> Any:
    import anyio

    return anyio.run(main, host_class)


def _gevent(main: Main[Any], host_class: HostClass) -> Any:
    import signal
    from threading import current_thread, main_thread

    import gevent

    from anyp2p.gevent_loop import finish

    hub, greenlet = gevent.get_hub(), gevent.getcurrent()
    if current_thread() is not main_thread():
        try:
            return finish(main(host_class))
        finally:
            hub.destroy()

    def interrupt(*_: object) -> None:
        hub.loop.run_callback(greenlet.throw, KeyboardInterrupt)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        return finish(main(host_class))
    finally:
        signal.signal(signal.SIGINT, before)


_KNOWN = {
    "asyncio": Runtime("anyp2p.asyncio", _asyncio),
    "trio": Runtime("anyp2p.trio", _trio, "trio"),
    "anyio": Runtime("anyp2p.anyio", _anyio, "anyio"),
    "gevent": Runtime("anyp2p.gevent_loop", _gevent, "gevent", "Loop"),
    "uvloop": Runtime("anyp2p.asyncio", _uvloop, "uvloop"),
}

RUNTIMES = tuple(_KNOWN)
"""What ``--runtime`` takes."""


def _only(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
