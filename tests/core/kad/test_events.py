"""Events of Kademlia: named fields, comparable, and none of them can be hashed."""

import inspect

import pytest
from core.kad.people import peer

from anyp2p_core.events import Event
from anyp2p_core.kad import events
from anyp2p_core.kad.query import Reason

KINDS = [
    kind
    for _, kind in inspect.getmembers(events, inspect.isclass)
    if issubclass(kind, Event) and kind is not Event
]


@pytest.mark.parametrize("kind", KINDS)
def test_all_are_events_with_a_text(kind):
    names = kind.__match_args__
    event = kind(*range(len(names)))
    assert repr(event) == f"{kind.__name__}({', '.join(f'{n}={i}' for i, n in enumerate(names))})"
    assert event == kind(*range(len(names)))
    assert not hasattr(event, "__dict__")


def test_every_command_has_its_final_event():
    text = events.__doc__
    for kind in KINDS:
        if kind.__match_args__[0] == "request" and kind is not events.DhtFailed:
            assert kind.__name__ in text


def test_a_search_tells_why_it_is_over():
    found = events.DhtProvidersSearched(1, b"key", 0, Reason.STARVED, False, ())
    assert found != events.DhtProvidersSearched(1, b"key", 0, Reason.STOPPED, False, ())
    assert found != events.DhtTableChanged("/ipfs/kad/1.0.0", peer(1), True, 1)
