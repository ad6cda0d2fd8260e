"""anyp2p_core.names"""

import pytest
from hypothesis import given, settings, strategies as st

from anyp2p_core import LimitReached, Multiaddr, PeerId, TimedOut
from anyp2p_core.names import (
    MAX_LEVELS,
    MAX_LOOKUPS,
    MAX_REASONS,
    MAX_RECORDS,
    MAX_RESULTS,
    TIMEOUT,
    Names,
    is_name,
)
from anyp2p_core.resolver import FakeResolver, LookupFailed
from anyp2p_core.timers import Timers

PEER = PeerId.parse("12D3KooWM6CgA9iBFZmcYAHA6A2qvbAxqfkmrYiRQuz3XEsk4Ksv")
OTHER = PeerId.parse("QmfXbAwNjJLXfesgztEHe8HwgVDCMMpZ9Eax1HYq6hn9uE")


class Asking:
    """One resolution, with all that came of it."""

    def __init__(self, records=(), *, delay=None, resolver=None):
        self.timers = Timers()
        self.now = 0.0
        timers = None if delay is None else self.timers
        self.resolver = resolver or FakeResolver(
            {tuple(key.split()): value for key, value in dict(records).items()}, timers, delay or 0
        )
        self.found = []
        self.done = []
        self.resolution = Names(self, self.resolver).start(self._found, self._done)

    def _found(self, asked, found, now):
        self.found.append((str(asked), found))

    def _done(self, asked, error, now):
        self.done.append((str(asked), error))

    def add(self, text, expected=None):
        self.resolution.add(Multiaddr(text), expected, self.now)

    def wait(self, seconds):
        end = self.now + seconds
        while (when := self.timers.next_timeout()) is not None and when <= end:
            self.now = when
            self.timers.run(when)
        self.now = end

    def targets(self):
        return [str(found.target) for _, found in self.found]


def resolve(text, records, expected=None):
    """Targets, and the error."""
    asking = Asking(records)
    asking.add(text, expected)
    ((asked, error),) = asking.done
    assert asked == text and not asking.resolution.busy and len(asking.timers) == 0
    assert (error is None) == bool(asking.found)
    assert error is None or isinstance(error, LookupFailed)
    return asking.targets(), str(error)


HOSTS = {
    "a.example A": ["192.0.2.1", "192.0.2.2"],
    "a.example AAAA": ["2001:db8::1"],
}


@pytest.mark.parametrize(
    ("text", "yes"),
    [
        ("/dns/a/tcp/1", True),
        ("/dns4/a/tcp/1", True),
        ("/dns6/a/tcp/1", True),
        ("/dnsaddr/a", True),
        ("/ip4/192.0.2.1/tcp/1", False),
        ("/ip4/192.0.2.1/tcp/1/tls/sni/a/ws", False),
    ],
)
def test_what_begins_with_a_name(text, yes):
    assert is_name(Multiaddr(text)) is yes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/dns4/a.example/tcp/1", ["/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.2/tcp/1"]),
        ("/dns6/a.example/udp/1/quic-v1", ["/ip6/2001:db8::1/udp/1/quic-v1"]),
        (
            "/dns/a.example/tcp/1",
            ["/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.2/tcp/1", "/ip6/2001:db8::1/tcp/1"],
        ),
        ("/dns6/a.example", ["/ip6/2001:db8::1"]),
        (f"/dns6/a.example/tcp/1/p2p/{PEER}", ["/ip6/2001:db8::1/tcp/1"]),
        (
            f"/dns6/a.example/tcp/1/p2p/{PEER}/p2p-circuit/p2p/{OTHER}",
            [f"/ip6/2001:db8::1/tcp/1/p2p/{PEER}/p2p-circuit"],
        ),
    ],
)
def test_records_take_the_place_of_the_name(text, expected):
    assert resolve(text, HOSTS) == (expected, "None")


def test_the_name_stays_beside_the_ip():
    asking = Asking(HOSTS)
    asking.add(f"/dns6/a.example/tcp/443/wss/p2p/{PEER}")
    ((_, found),) = asking.found
    assert found.address == Multiaddr("/dns6/a.example/tcp/443/wss")
    assert found.target == Multiaddr("/ip6/2001:db8::1/tcp/443/wss")
    assert found.peer == PEER


def test_only_the_address_says_who_is_there():
    asking = Asking(HOSTS)
    asking.add("/dns6/a.example/tcp/1", PEER)
    asking.add(f"/dns6/a.example/tcp/2/p2p/{PEER}", PEER)
    assert [found.peer for _, found in asking.found] == [None, PEER]


def test_the_name_behind_a_dnsaddr_too():
    asking = Asking(
        {
            **HOSTS,
            "_dnsaddr.b.example TXT": [
                f"dnsaddr=/dns6/a.example/tcp/443/wss/p2p/{PEER}",
                "dnsaddr=/ip4/192.0.2.9/tcp/1",
            ],
        }
    )
    asking.add("/dnsaddr/b.example")
    asked, (named, plain) = asking.found[0][0], [found for _, found in asking.found]
    assert asked == "/dnsaddr/b.example"
    assert named.address == Multiaddr("/dns6/a.example/tcp/443/wss") and named.peer == PEER
    assert named.target == Multiaddr("/ip6/2001:db8::1/tcp/443/wss")
    assert plain.address == plain.target == Multiaddr("/ip4/192.0.2.9/tcp/1")
    assert plain.peer is None


def test_a_long_name_is_cut_where_it_ends():
    name = "x" * 60 + "." + "y" * 60 + "." + "z" * 60
    assert resolve(f"/dns4/{name}/tcp/1", {f"{name} A": ["192.0.2.1"]})[0] == [
        "/ip4/192.0.2.1/tcp/1"
    ]


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ({}, "a.example: there is no a.example"),
        ({"a.example A": []}, "a.example has no A records"),
        ({"a.example A": ["::1", "x", "", "192.0.2.1 ", "1.2.3"]}, "that is no IP address"),
        ({"a.example A": TimeoutError()}, "a.example: TimeoutError"),
    ],
)
def test_a_name_that_stands_for_nothing(records, reason):
    targets, error = resolve("/dns4/a.example/tcp/1", records)
    assert targets == [] and reason in error


def test_one_family_is_enough():
    assert resolve("/dns/a.example/tcp/1", {"a.example A": ["192.0.2.1"], "a.example AAAA": []})[0]
    assert resolve("/dns/a.example/tcp/1", {"a.example AAAA": ["::1"]})[0] == ["/ip6/::1/tcp/1"]


def test_bad_records_are_skipped():
    records = {"a.example A": ["300.1.1.1", "192.0.2.1"], "a.example AAAA": ["fe80::1%eth0"]}
    assert resolve("/dns/a.example/tcp/1", records)[0] == ["/ip4/192.0.2.1/tcp/1"]


# dnsaddr


def links(*texts):
    return [f"dnsaddr={text}" for text in texts]


def test_entries_that_do_not_fit_are_skipped():
    good = f"/ip4/192.0.2.1/tcp/1/p2p/{PEER}"
    entries = [
        "",
        "dnsaddr",
        "dnsaddr=",
        "dnsaddr=nonsense",
        f"DNSADDR={good}",
        f"x={good}",
        good,
        "dnsaddr=/ip4/192.0.2.2/tcp/1",
        f"dnsaddr=/ip4/192.0.2.3/tcp/1/p2p/{OTHER}",
        f"dnsaddr=/ip4/192.0.2.4/tcp/1/p2p/{PEER}/p2p-circuit/p2p/{OTHER}",
        "dnsaddr=/" + "x" * 10**5,
        f"dnsaddr=/p2p/{PEER}",
        f"dnsaddr={good}",
    ]
    records = {"_dnsaddr.a.example TXT": entries}
    for text in (f"/dnsaddr/a.example/p2p/{PEER}", "/dnsaddr/a.example"):
        targets, _ = resolve(text, records, PEER)
        assert targets == ["/ip4/192.0.2.1/tcp/1"]


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([], "_dnsaddr.a.example has no TXT records"),
        (["v=spf1 -all"], "_dnsaddr.a.example says nothing of /dnsaddr/a.example"),
        (links(f"/ip4/192.0.2.1/tcp/1/p2p/{OTHER}"), "says nothing of"),
        (links(f"/p2p/{PEER}"), "a peer id is no address"),
        (links(f"/dnsaddr/b.example/p2p/{PEER}"), "there is no _dnsaddr.b.example"),
    ],
)
def test_a_dnsaddr_without_a_use(entries, reason):
    targets, error = resolve("/dnsaddr/a.example", {"_dnsaddr.a.example TXT": entries}, PEER)
    assert targets == [] and reason in error


def test_whatever_follows_the_name_has_to_be_at_the_end():
    records = {
        "_dnsaddr.a.example TXT": links("/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/tcp/2/ws", "/ws")
    }
    assert resolve("/dnsaddr/a.example/tcp/1", records)[0] == ["/ip4/192.0.2.1/tcp/1"]
    assert resolve("/dnsaddr/a.example/tcp/2/ws", records)[0] == ["/ip4/192.0.2.1/tcp/2/ws"]


def test_a_name_may_stand_for_names():
    records = {
        **HOSTS,
        "_dnsaddr.a.example TXT": links(f"/dnsaddr/b.example/p2p/{PEER}", "/dnsaddr/c.example"),
        "_dnsaddr.b.example TXT": links(
            f"/dns6/a.example/tcp/1/p2p/{PEER}", f"/ip4/192.0.2.7/tcp/7/p2p/{PEER}"
        ),
        "_dnsaddr.c.example TXT": links("/ip4/192.0.2.8/tcp/8"),
    }
    assert resolve("/dnsaddr/a.example", records)[0] == [
        "/ip6/2001:db8::1/tcp/1",
        "/ip4/192.0.2.7/tcp/7",
        "/ip4/192.0.2.8/tcp/8",
    ]
    assert resolve("/dnsaddr/a.example", records, PEER)[0] == [
        "/ip6/2001:db8::1/tcp/1",
        "/ip4/192.0.2.7/tcp/7",
    ]


def test_an_address_of_another_peer_is_not_looked_up():
    for text in (f"/dnsaddr/a.example/p2p/{OTHER}", f"/dns4/a.example/tcp/1/p2p/{OTHER}"):
        asking = Asking(HOSTS)
        asking.add(text, PEER)
        ((_, error),) = asking.done
        assert "another peer" in str(error) and asking.resolver.asked == []


def test_an_address_that_is_too_long_with_the_peer():
    text = "/dnsaddr/a.example" + "/ws" * 15
    asking = Asking({})
    asking.add(text, PEER)
    assert "16 components" in str(asking.done[0][1])


# Limits


def chain(length):
    records = {
        f"_dnsaddr.{n}.example TXT": links(f"/dnsaddr/{n + 1}.example") for n in range(length - 1)
    }
    return {**records, f"_dnsaddr.{length - 1}.example TXT": links("/ip4/192.0.2.1/tcp/1")}


def test_four_levels():
    assert MAX_LEVELS == 4
    assert resolve("/dnsaddr/0.example", chain(4))[0] == ["/ip4/192.0.2.1/tcp/1"]
    targets, error = resolve("/dnsaddr/0.example", chain(5))
    assert targets == [] and "more than 4 levels" in error


def test_loops_end():
    records = {
        "_dnsaddr.a.example TXT": links("/dnsaddr/b.example", "/dnsaddr/a.example"),
        "_dnsaddr.b.example TXT": links("/dnsaddr/a.example"),
    }
    asking = Asking(records)
    asking.add("/dnsaddr/a.example")
    assert len(asking.resolver.asked) == 2
    assert "/dnsaddr/a.example is looked up already" in str(asking.done[0][1])


def test_32_lookups():
    names = [f"/dns4/{n}.example/tcp/1" for n in range(100)]
    records = {f"{n}.example A": ["192.0.2.1"] for n in range(100)}
    asking = Asking({**records, "_dnsaddr.a.example TXT": links(*names)})
    asking.add("/dnsaddr/a.example")
    assert len(asking.resolver.asked) == MAX_LOOKUPS == 32 and len(asking.found) == 31
    asking.add("/dns4/99.example/tcp/2")
    assert len(asking.resolver.asked) == 32
    assert "more than 32 lookups" in str(asking.done[1][1])


def test_64_results():
    many = links(*[f"/ip4/192.0.2.1/tcp/{n}" for n in range(1, 100)])
    asking = Asking({"_dnsaddr.a.example TXT": many, **HOSTS})
    asking.add("/dnsaddr/a.example")
    assert len(asking.found) == MAX_RESULTS == 64
    asking.add("/dns4/a.example/tcp/1")
    assert len(asking.found) == 64


def test_only_so_many_records_are_looked_at():
    good = links("/ip4/192.0.2.1/tcp/1")
    records = {"_dnsaddr.a.example TXT": ["x"] * (MAX_RECORDS - 1) + good + ["x"] * 10**4}
    assert resolve("/dnsaddr/a.example", records)[0]
    records = {"_dnsaddr.a.example TXT": ["x"] * MAX_RECORDS + good}
    assert not resolve("/dnsaddr/a.example", records)[0]


def test_a_failure_has_few_words():
    names = [f"/dns4/{'x' * 50}{n}.example/tcp/1" for n in range(100)]
    _, error = resolve("/dnsaddr/a.example", {"_dnsaddr.a.example TXT": links(*names)})
    assert error.count("there is no") == MAX_REASONS == 4


# Time


def test_answers_come_later():
    asking = Asking(HOSTS, delay=1.0)
    asking.add("/dns/a.example/tcp/1")
    asking.add("/dns/b.example/tcp/1")
    assert asking.resolution.busy and asking.found == asking.done == []
    assert asking.timers.reasons().count("look up names") == 1
    asking.wait(1.0)
    assert len(asking.found) == 3 and not asking.resolution.busy and len(asking.timers) == 0
    assert [asked for asked, _ in asking.done] == ["/dns/a.example/tcp/1", "/dns/b.example/tcp/1"]


def test_an_address_is_looked_up_once():
    asking = Asking(HOSTS, delay=1.0)
    for _ in range(3):
        asking.add("/dns4/a.example/tcp/1")
    asking.wait(1.0)
    asking.add("/dns4/a.example/tcp/1")
    assert len(asking.resolver.asked) == len(asking.done) == 1


def test_ten_seconds_for_all():
    asking = Asking({**HOSTS, **chain(3)}, delay=4.0)
    asking.add("/dnsaddr/0.example")
    asking.wait(3.0)
    asking.add("/dns4/a.example/tcp/1")
    asking.wait(6.9)
    assert asking.done == [("/dns4/a.example/tcp/1", None)]
    asking.wait(0.1)
    assert asking.now == TIMEOUT == 10.0
    asked, error = asking.done[1]
    assert asked == "/dnsaddr/0.example" and isinstance(error, TimedOut)
    assert "10 s" in str(error) and not asking.resolution.busy
    asking.wait(100)
    assert len(asking.done) == 2 and len(asking.found) == 2  # the late answer is ignored


def test_what_was_found_in_time_is_a_success():
    records = {"_dnsaddr.0.example TXT": links("/ip4/192.0.2.1/tcp/1", "/dnsaddr/1.example")}
    asking = Asking({**chain(9), **records}, delay=6.0)
    asking.add("/dnsaddr/0.example")
    asking.wait(10.0)
    assert asking.done == [("/dnsaddr/0.example", None)] and len(asking.found) == 1


def test_time_runs_anew_after_a_pause():
    asking = Asking(HOSTS, delay=9.0)
    asking.add("/dns4/a.example/tcp/1")
    asking.wait(9.5)
    asking.add("/dns6/a.example/tcp/1")
    asking.wait(9.0)
    assert [error for _, error in asking.done] == [None, None]


def test_nobody_wants_to_know():
    asking = Asking(HOSTS, delay=1.0)
    asking.add("/dns/a.example/tcp/1")
    asking.resolution.cancel()
    assert not asking.resolution.busy and asking.timers.reasons() == ["answer of the resolver"] * 2
    asking.wait(20.0)
    assert asking.found == asking.done == []


def test_nobody_wants_to_know_more():
    """A callback cancels."""
    asking = Asking({"_dnsaddr.a.example TXT": links("/ip4/192.0.2.1/tcp/1", "/dns/b/tcp/1")})
    asking._found = lambda *args: (asking.found.append(args), asking.resolution.cancel())
    asking.resolution = Names(asking, asking.resolver).start(asking._found, asking._done)
    asking.add("/dnsaddr/a.example")
    assert len(asking.found) == 1 and asking.done == [] and len(asking.resolver.asked) == 1
    asking = Asking(HOSTS)
    found = []
    resolution = Names(asking, asking.resolver).start(
        lambda *args: (found.append(args), resolution.cancel()), asking._done
    )
    resolution.add(Multiaddr("/dns4/a.example/tcp/1"), None, 0.0)
    assert len(found) == 1 and asking.done == [] and len(asking.timers) == 0


def test_a_callback_cancels_when_time_is_over():
    asking = Asking(HOSTS, delay=100.0)
    done = []
    resolution = Names(asking, asking.resolver).start(
        asking._found, lambda *args: (done.append(args), resolution.cancel())
    )
    for number in range(3):
        resolution.add(Multiaddr(f"/dns4/{number}.example/tcp/1"), None, 0.0)
    asking.wait(TIMEOUT)
    assert len(done) == 1 and not resolution.busy


# Resolvers that do not do as they should


def test_a_resolver_that_answers_twice_or_raises():
    class Twice(FakeResolver):
        def query(self, name, kind, answered, now):
            super().query(name, kind, answered, now)
            super().query(name, kind, answered, now)

    asking = Asking(resolver=Twice({("a.example", "A"): ["192.0.2.1"]}))
    asking.add("/dns4/a.example/tcp/1")
    assert asking.done == [("/dns4/a.example/tcp/1", None)] and len(asking.found) == 1

    class Full(FakeResolver):
        def query(self, name, kind, answered, now):
            raise LimitReached("too much")

    asking = Asking(resolver=Full({}))
    asking.add("/dns/a.example/tcp/1")
    assert "a.example: too much" in str(asking.done[0][1])


@settings(deadline=None)
@given(st.data())
def test_whatever_answers_say_it_ends(data):
    hosts = st.sampled_from([f"{letter}.example" for letter in "abcd"])
    texts = st.one_of(
        hosts.map(lambda host: f"dnsaddr=/dnsaddr/{host}"),
        hosts.map(lambda host: f"dnsaddr=/dns/{host}/tcp/1"),
        st.tuples(hosts, st.sampled_from([PEER, OTHER])).map(
            lambda item: f"dnsaddr=/dnsaddr/{item[0]}/p2p/{item[1]}"
        ),
        st.text(max_size=20),
        st.just("dnsaddr=/ip4/192.0.2.1/tcp/1"),
    )
    records = {}
    for letter in "abcd":
        records[f"_dnsaddr.{letter}.example TXT"] = data.draw(st.lists(texts, max_size=8))
        for kind in ("A", "AAAA"):
            answers = st.lists(st.sampled_from(["192.0.2.1", "::1", "?"]), max_size=3)
            records[f"{letter}.example {kind}"] = data.draw(answers)
    asking = Asking(records, delay=data.draw(st.sampled_from([None, 0.1, 3.0])))
    starts = data.draw(st.lists(hosts, min_size=1, max_size=3, unique=True))
    expected = data.draw(st.sampled_from([None, PEER]))
    for host in starts:
        asking.add(f"/dnsaddr/{host}", expected)
    asking.wait(TIMEOUT)
    assert sorted(asked for asked, _ in asking.done) == sorted(f"/dnsaddr/{h}" for h in starts)
    assert len(asking.resolver.asked) <= MAX_LOOKUPS and not asking.resolution.busy
    for asked, error in asking.done:
        assert (error is None) == any(where == asked for where, _ in asking.found)
