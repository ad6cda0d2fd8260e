import pytest
from core.pubsub.net import Choice

from anyp2p_core import LocalError
from anyp2p_core.pubsub import gater as module
from anyp2p_core.pubsub.gater import Gater, GaterParams


class Fixed:
    value = 0.5

    def random(self):
        return self.value


def overloaded(choice=None):
    gater = Gater(GaterParams(), choice or Fixed())
    for _ in range(10):
        gater.validated()
        gater.throttled(0.0)
    return gater


def test_it_is_off_while_nothing_is_throttled():
    gater = Gater(GaterParams(), Fixed())
    gater.source("a").rejected = 1000
    gater.validated()
    assert gater.accepts("a", 0.0)


def test_it_turns_on_and_off():
    gater = overloaded()
    gater.source("a").rejected = 1000
    assert not gater.accepts("a", 60.0) and gater.accepts("b", 60.0)
    assert gater.accepts("a", 60.1)  # quiet for long enough
    for _ in range(30):
        gater.validated()
    assert gater.accepts("a", 1.0)  # only a small share is throttled


def test_it_is_on_when_nothing_at_all_is_validated():
    gater = Gater(GaterParams(), Fixed())
    gater.throttled(0.0)
    gater.source("a").rejected = 1000
    assert not gater.accepts("a", 0.0)


@pytest.mark.parametrize(
    ("counters", "probability"),
    [
        ({}, 1.0),
        ({"duplicate": 8}, 1 / 2),
        ({"ignored": 1}, 1 / 2),
        ({"rejected": 1}, 1 / 17),
        ({"delivered": 15, "rejected": 1}, 1 / 2),
        ({"delivered": 2, "duplicate": 8, "ignored": 1, "rejected": 1}, 3 / 21),
    ],
)
def test_who_is_heard(counters, probability):
    choice = Fixed()
    gater = overloaded(choice)
    for name, value in counters.items():
        setattr(gater.source("a"), name, value)
    choice.value = probability - 0.001
    assert gater.accepts("a", 0.0)
    choice.value = probability
    assert not gater.accepts("a", 0.0)


def test_counters_decay_and_sources_are_forgotten():
    gater = overloaded(Choice(1))
    source = gater.source("a")
    source.delivered = source.duplicate = source.ignored = source.rejected = 1.0
    gater.source("empty")
    gater.decay()
    assert 0.99 < source.delivered < 1 and list(gater._sources) == ["a"]
    for _ in range(3600):
        gater.decay()
    assert gater._sources == {} and gater._throttled == 0.0 == gater._validated


def test_sources_are_bounded(monkeypatch):
    monkeypatch.setattr(module, "MAX_SOURCES", 3)
    gater = overloaded()
    for name in "abcad":
        gater.source(name)
    assert list(gater._sources) == ["c", "a", "d"]


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": 0.0},
        {"quiet": 0.5},
        {"quiet": float("nan")},
        {"global_decay": 1.0},
        {"source_decay": 0.0},
        {"decay_to_zero": 2.0},
        {"duplicate_weight": 0.0},
        {"ignore_weight": 0.5},
        {"reject_weight": 0.0},
    ],
)
def test_numbers_that_make_no_sense(change):
    with pytest.raises(LocalError, match="gater"):
        Gater(GaterParams(**change), Fixed())
