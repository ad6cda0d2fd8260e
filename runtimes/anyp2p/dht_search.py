"""A search that tells of what it finds while it goes on, and the events on their way to it.

host.flush -> event of the node -> Events -> Search.on_found, Search.on_over
                                     |-----> whoever awaits a command
"""

from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar
from weakref import ref

from anyp2p_core.events import PeerIdentified
from anyp2p_core.kad.events import (
    DhtBootstrapped,
    DhtClosestFound,
    DhtFailed,
    DhtPeerFound,
    DhtProvided,
    DhtProviderFound,
    DhtProvidersSearched,
    DhtValueFound,
    DhtValueImproved,
    DhtValuePut,
    Trace,
)
from anyp2p_core.kad.providers import Provider

if TYPE_CHECKING:
    from .dht import Dht
    from .host import BaseHost

T = TypeVar("T")
R = TypeVar("R")


class Search(Generic[T, R]):
    """What a search finds, as it is found. It runs from its making on.

    ``async for`` takes what there is. Leaving it early ends it: for sure with ``async with`` or
    ``aclose``, and when the waiting task is cancelled; else soon after nobody holds it any more.
    """

    __slots__ = ("result", "_dht", "_error", "_over", "_ready", "_request", "_trace", "__weakref__")

    def __init__(self, dht: "Dht", request: int) -> None:
        self.result: R | None = None
        """How it ended, once it has: with a ``trace``, too."""
        self._dht = dht
        self._request = request
        self._error: Exception | None = None
        self._over = False
        self._ready: deque[T] = deque()  # the service bounds what one search finds
        self._trace: Trace = ()

    @property
    def trace(self) -> Trace:
        """Everybody who was asked so far, in order."""
        return self._trace if self._over else self._dht.kad.trace(self._request)

    @property
    def over(self) -> bool:
        """Whether nobody is asked any more; what was found may still be waiting."""
        return self._over

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        host = self._dht.host
        host._check_thread()
        while not self._ready:
            if self._over:
                error, self._error = self._error, None
                if error is not None:
                    raise error
                raise StopAsyncIteration
            heard = False
            try:
                host._check_usable()
                await host._outcome(self._request)
                heard = True
            finally:
                if not heard:
                    self._cancel()
        return self._ready.popleft()

    async def aclose(self) -> None:
        """End the search. Harmless when repeated, and when it is over."""
        self._dht.host._check_thread()
        self._ready.clear()
        self._error = None
        self._cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    # Called with the events of this search.

    def on_found(self, result: T) -> None:
        self._ready.append(result)
        self._dht.host._resolve(self._request, None)

    def on_over(self, trace: Trace, error: Exception | None = None) -> None:
        self._over = True
        self._trace = trace
        self._error = error
        self._dht.host._resolve(self._request, None)

    def _cancel(self) -> None:
        if not self._over:
            self._trace = self.trace
            self._over = True
            self._dht.cancel(self._request)


class ProviderSearch(Search[Provider, DhtProvidersSearched]):
    """The peers that provide something.

    A peer whose address comes to be known later is told of a second time.
    """

    __slots__ = ()


class ValueSearch(Search[bytes, DhtValueFound]):
    """The values of a key, each better than the one before; the last one is the best."""

    __slots__ = ()


class Events:
    """The events of all networks of a host, on their way to whoever waits for them."""

    def __init__(self, host: "BaseHost[Any]") -> None:
        self.networks: tuple[Dht, ...] = ()
        self.searches: dict[int, ref[Search[Any, Any]]] = {}
        self._host = host
        for kind in (DhtPeerFound, DhtClosestFound, DhtProvided, DhtValuePut, DhtBootstrapped):
            host.watch(kind, self._on_done)
        host.watch(DhtProviderFound, lambda e: self._on_found(e.request, e.provider))
        host.watch(DhtValueImproved, lambda e: self._on_found(e.request, e.value))
        host.watch(DhtProvidersSearched, self._on_done)
        host.watch(DhtValueFound, self._on_done)
        host.watch(DhtFailed, self._on_failed)
        host.watch(PeerIdentified, self._on_identified)

    def drop_abandoned(self) -> None:
        """Cancel searches that nobody holds any more."""
        for request, held in list(self.searches.items()):
            if held() is None:
                self._drop(request)

    def forget(self, request: int) -> None:
        """A search is over."""
        self.searches.pop(request, None)

    def _drop(self, request: int) -> None:
        self.forget(request)
        for network in self.networks:
            network.kad.cancel(request, self._host.now())

    def _on_found(self, request: int, result: Any) -> None:
        held = self.searches.get(request)
        search = held() if held is not None else None
        if search is not None:
            search.on_found(result)
        elif held is not None:
            self._drop(request)

    def _on_done(self, event: Any) -> None:
        held = self.searches.pop(event.request, None)
        search: Any = held() if held is not None else None
        if search is not None:
            search.result = event
            search.on_over(event.trace)
        else:
            self._host._resolve(event.request, event)

    def _on_failed(self, event: DhtFailed) -> None:
        event.error.trace = event.trace  # type: ignore[attr-defined]
        held = self.searches.pop(event.request, None)
        search = held() if held is not None else None
        if search is not None:
            search.on_over(event.trace, event.error)
        else:
            self._host._reject(event.request, event.error)

    def _on_identified(self, event: PeerIdentified) -> None:
        for network in self.networks:
            network.on_identified(event)
