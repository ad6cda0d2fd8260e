"""anyp2p_core.resolver"""

from anyp2p_core import RemoteError
from anyp2p_core.resolver import FakeResolver, LookupFailed
from anyp2p_core.timers import Timers


def ask(resolver, name, kind="A", now=0.0):
    answers = []
    resolver.query(name, kind, lambda records, now: answers.append((records, now)), now)
    return answers


def test_it_says_what_it_was_told():
    down = LookupFailed("down")
    resolver = FakeResolver(
        {
            ("a.example", "A"): ["192.0.2.1"],
            ("a.example", "TXT"): ("one", "two"),
            ("b.example", "A"): [],
            ("c.example", "A"): down,
        }
    )
    assert ask(resolver, "a.example", now=7.0) == [(["192.0.2.1"], 7.0)]
    assert ask(resolver, "A.Example.") == [(["192.0.2.1"], 0.0)]
    assert ask(resolver, "a.example", "TXT") == [(["one", "two"], 0.0)]
    assert ask(resolver, "b.example") == [([], 0.0)]
    assert ask(resolver, "c.example") == [(down, 0.0)]
    ((missing, _),) = ask(resolver, "d.example")
    assert isinstance(missing, LookupFailed) and "d.example" in str(missing)
    assert resolver.asked[:3] == [("a.example", "A"), ("A.Example.", "A"), ("a.example", "TXT")]


def test_its_answers_can_be_changed_but_not_by_who_gets_them():
    resolver = FakeResolver({})
    resolver.records["a.example", "A"] = ["192.0.2.1"]
    ask(resolver, "a.example")[0][0].clear()
    assert ask(resolver, "a.example") == [(["192.0.2.1"], 0.0)]


def test_it_takes_its_time():
    timers = Timers()
    resolver = FakeResolver({("a.example", "A"): ["192.0.2.1"]}, timers, 2.0)
    answers = ask(resolver, "a.example", now=1.0)
    timers.run(2.9)
    assert answers == []
    timers.run(3.5)
    assert answers == [(["192.0.2.1"], 3.5)]


def test_a_failed_lookup_is_nobodys_mistake_here():
    assert issubclass(LookupFailed, RemoteError)
