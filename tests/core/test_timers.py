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


def test_cancelled_ones_do_not_run():
    timers, ran = Timers(), []
    keep = timers.call_at(1.0, "keep", ran.append)
    drop = timers.call_at(0.5, "drop", ran.append)
    timers.cancel(drop)
    timers.cancel(drop)
    assert timers.reasons() == ["keep"] and timers.next_timeout() == 1.0
    timers.run(1.5)
    assert ran == [1.5]
    timers.cancel(keep)


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


def test_row_143_cancelled_timers_do_not_pile_up():
    timers = Timers()
    for i in range(100_000):
        timers.cancel(timers.call_at(10.0 + i, "short-lived", lambda now: None))
    assert len(timers) == 0
    assert len(timers._heap) < 200
