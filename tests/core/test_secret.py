"""anyp2p_core.secret: keys stay where they are."""

import copy
import pickle
from collections.abc import Callable

import pytest

from anyp2p_core.secret import Secret


class Key(Secret):
    __slots__ = ()


@pytest.mark.parametrize("act", [pickle.dumps, copy.copy, copy.deepcopy])
def test_row_39_it_is_neither_pickled_nor_copied(act: Callable[[object], object]) -> None:
    with pytest.raises(TypeError, match="Key holds keys and is neither pickled nor copied"):
        act(Key())
