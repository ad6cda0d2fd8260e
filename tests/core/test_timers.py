"""anyp2p_core.timers"""

import random
import time
from functools import partial

import pytest
from hypothesis import given, settings, strategies as st

from anyp2p_core.timers import Timers


def test_runs_in_order_of_time_then_of_making():
    timers, ran = Timers(), []
    timers.call_at(2.0, "late", lambda now: ran.append("late"))
    timers.call_at(1.0, "first", lambda now: ran.append("first"))
    timers.call_at(1.0, "second", lambda now: ran.append("second"))
    assert timers.next_timeout() == 1.0
    timers.run(0.5)
    assert ran == []
    timers.run(1.0)
    assert ran == ["first", "second"]
    timers.run(5.0)
    assert ran == ["first", "second", "late"]
    assert timers.next_timeout() is None and len(timers) == 0


def test_callbacks_get_the_time_of_the_run():
    timers, ran = Timers(), []
    timers.call_at(1.0, "a", ran.append)
    timers.run(7.5)
    timers.run(8.0)
    assert ran == [7.5]


def test_cancelled_ones_do_not_run():
    timers, ran = Timers(), []
    keep = timers.call_at(1.0, "keep", ran.append)
    drop = timers.call_at(0.5, "drop", ran.append)
    timers.cancel(drop)
    timers.cancel(drop)
    timers.cancel(0)  # no handle is 0, so that it can stand for none
    assert timers.reasons() == ["keep"] and timers.next_timeout() == 1.0 and len(timers) == 1
    timers.run(1.5)
    assert ran == [1.5]
    timers.cancel(keep)
    assert len(timers) == 0


def test_one_timer_may_cancel_the_next():
    timers, ran = Timers(), []
    timers.call_at(1.0, "first", lambda now: timers.cancel(second))
    second = timers.call_at(1.0, "second", ran.append)
    timers.run(1.0)
    assert ran == [] and len(timers) == 0


def test_a_timer_made_by_a_timer_waits_for_the_next_run():
    timers, ran = Timers(), []

    def again(now):
        ran.append(now)
        timers.call_at(now, "again", again)

    timers.call_at(1.0, "again", again)
    timers.run(1.0)
    assert ran == [1.0]
    timers.run(1.0)
    assert ran == [1.0, 1.0]


def test_what_follows_a_timer_made_meanwhile_is_due_at_once():
    timers, ran = Timers(), []
    timers.call_at(1.0, "a", lambda now: timers.call_at(2.0, "b", lambda now: ran.append("b")))
    timers.call_at(3.0, "c", lambda now: ran.append("c"))
    timers.run(5.0)
    assert ran == [] and timers.next_timeout() == 2.0
    timers.run(5.0)
    assert ran == ["b", "c"]


def test_an_error_loses_its_own_timer_only():
    timers, ran = Timers(), []
    timers.call_at(1.0, "bad", lambda now: 1 // 0)
    timers.call_at(1.0, "good", ran.append)
    with pytest.raises(ZeroDivisionError):
        timers.run(1.0)
    timers.run(1.0)
    assert ran == [1.0]


def test_row_143_cancelled_timers_do_not_pile_up():
    timers = Timers()
    for number in range(100_000):
        timers.cancel(timers.call_at(10.0 + number, "short-lived", lambda now: None))
    assert len(timers) == 0
    assert len(timers._heap) < 200


def test_tidying_up_keeps_the_order_and_is_rare():
    timers, ran, source = Timers(), [], random.Random(0)
    kept = [source.random() for _ in range(5000)]
    for when in kept:
        timers.call_at(when, "kept", partial(lambda when, now: ran.append(when), when))
    before = time.process_time()
    for _ in range(20_000):
        timers.cancel(timers.call_at(source.random(), "dropped", ran.append))
        assert len(timers._heap) <= 64 + 2 * len(kept) + 1
    assert time.process_time() - before < 1.5  # each time would take several seconds
    timers.run(0.5)
    assert ran == sorted(when for when in kept if when <= 0.5)
    timers.run(1.0)
    assert ran == sorted(kept)


def test_cancelling_inside_a_run_may_tidy_up():
    timers, ran = Timers(), []

    def drop(now):
        for handle in handles:
            timers.cancel(handle)

    timers.call_at(1.0, "drop", drop)
    handles = [timers.call_at(2.0 + number, "dropped", ran.append) for number in range(500)]
    timers.call_at(1.5, "kept", ran.append)
    timers.run(9.0)
    assert ran == [9.0] and len(timers) == 0 and len(timers._heap) < 200


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.sampled_from("mcr"), st.integers(0, 20)), max_size=80))
def test_like_a_list_that_is_sorted_each_time(steps):
    timers, ran = Timers(), []
    expected, live, now = [], {}, 0

    def call(made, now):
        ran.append(made)

    for step, number in steps:
        if step == "m":
            handle = timers.call_at(number, "m", partial(call, len(live)))
            live[handle] = (number, len(live))
        elif step == "c" and live:
            handle = sorted(live)[number % len(live)]
            timers.cancel(handle)
            live[handle] = None
        else:
            now = max(now, number)
            timers.run(now)
            due = sorted((*one, handle) for handle, one in live.items() if one and one[0] <= now)
            expected += [made for _, made, _ in due]
            live |= dict.fromkeys((handle for *_, handle in due), None)
        waiting = [one[0] for one in live.values() if one]
        assert timers.next_timeout() == min(waiting, default=None)
        assert len(timers) == len(timers.reasons()) == len(waiting)
    assert ran == expected
