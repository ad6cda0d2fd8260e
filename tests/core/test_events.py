"""anyp2p_core.events"""

import dataclasses

import pytest

import anyp2p_core
from anyp2p_core import events
from anyp2p_core.events import (
    Action,
    CloseConnection,
    Dial,
    Event,
    OpenSocket,
    PauseReading,
    ResumeReading,
)

CLASSES = [
    one
    for one in vars(events).values()
    if isinstance(one, type) and issubclass(one, Action | Event) and one not in (Action, Event)
]


def make(kind):
    return kind(*(None for _ in dataclasses.fields(kind)))


def test_there_are_five_actions_and_the_rest_are_events():
    assert {one for one in CLASSES if issubclass(one, Action)} == {
        CloseConnection, Dial, OpenSocket, PauseReading, ResumeReading,
    }  # fmt: skip
    assert not [one for one in CLASSES if issubclass(one, Action) and issubclass(one, Event)]


@pytest.mark.parametrize("kind", CLASSES)
def test_each_is_slotted_exported_comparable_and_shows_its_fields(kind):
    one = make(kind)
    assert not hasattr(one, "__dict__")
    with pytest.raises(AttributeError):
        one.extra = 1
    assert kind.__name__ in anyp2p_core.__all__ and getattr(anyp2p_core, kind.__name__) is kind
    assert one == make(kind) and one != object()
    for field in dataclasses.fields(kind):
        assert f"{field.name}=None" in repr(one)
        other = make(kind)
        setattr(other, field.name, 1)  # not frozen: that costs more than twice as much
        assert one != other
    assert repr(one).startswith(kind.__name__)


def test_different_kinds_differ():
    made = [make(kind) for kind in CLASSES]
    for first in made:
        assert [other for other in made if other == first] == [first]
