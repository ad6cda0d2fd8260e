"""Which event loop runs a command: a name, the module with its Host, and how to run on it.

To add a runtime, give it an entry in ``_KNOWN``: the module must have a ``Host`` with the methods
of ``BaseHost``, and ``run(main, host_class)`` must run ``main(host_class)`` to its end. SIGINT must
end ``main`` with whatever cancels a task there, and come out of ``run`` as KeyboardInterrupt.
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
    """Where its ``Host`` is."""
    run: Callable[[Main[Any], HostClass], Any]
    needs: str = ""
    """The package to install, also the name of the extra."""


def run(name: str, main: "Main[T]") -> T:
    """Run ``main(host_class)`` on a runtime; returns what it returns."""
    from .failures import Failure

    runtime = _KNOWN.get(name)
    if runtime is None:
        usable = ", ".join(_KNOWN)
        raise Failure(f"the {name} runtime is not part of this version yet: use one of {usable}")
    if not _installed(runtime):
        raise Failure(
            f"the {name} runtime needs the '{runtime.needs}' package: "
            f"pip install 'anyp2p[{runtime.needs}]'"
        )
    host_class = import_module(runtime.module).Host
    try:
        result: T = runtime.run(main, host_class)
    except BaseExceptionGroup as group:  # trio and anyio wrap what ends a nursery
        raise _only(group) from None
    return result


def available() -> list[str]:
    """Runtimes whose packages are installed."""
    return [name for name, runtime in _KNOWN.items() if _installed(runtime)]


def _asyncio(main: Main[Any], host_class: HostClass) -> Any:
    import asyncio

    with asyncio.Runner() as runner:
        return runner.run(main(host_class))


def _uvloop(main: Main[Any], host_class: HostClass) -> Any:
    import asyncio

    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main(host_class))


_KNOWN = {
    "asyncio": Runtime("anyp2p.asyncio", _asyncio),
    "uvloop": Runtime("anyp2p.asyncio", _uvloop, "uvloop"),
}
_PLANNED = ("trio", "anyio", "gevent")

RUNTIMES = tuple(dict.fromkeys((*_KNOWN, *_PLANNED)))
"""What ``--runtime`` takes."""


def _installed(runtime: Runtime) -> bool:
    from importlib.util import find_spec

    return not runtime.needs or find_spec(runtime.needs) is not None


def _only(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
