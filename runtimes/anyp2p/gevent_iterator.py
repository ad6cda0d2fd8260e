"""What comes one by one, for greenlets: ``for`` over it, and ``with`` it."""

from abc import ABC, abstractmethod
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from .gevent_loop import finish

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Items(Protocol[T_co]):
    """What the host offers to loops that await."""

    def __anext__(self) -> Coroutine[Any, Any, T_co]: ...


class Blocking(ABC, Generic[T]):
    """The blocking face of an asynchronous iterator. Leaving ``with`` closes it."""

    __slots__ = ("_items",)

    def __init__(self, items: Items[T]) -> None:
        self._items = items

    @abstractmethod
    def close(self) -> None:
        """Nothing more is wanted. Harmless when repeated."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        try:
            return finish(self._items.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
