"""What holds keys is not copied and not pickled: no second place to guard."""

from typing import NoReturn


class Secret:
    """Base of what holds keys."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds keys and is neither pickled nor copied")
