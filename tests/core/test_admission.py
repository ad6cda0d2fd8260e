"""Which accepted connections are looked at."""

import pytest

from anyp2p_core.admission import Admission, source_of
from anyp2p_core.limits import Limits
from anyp2p_core.multiaddr import Multiaddr

HERE = Multiaddr("/ip4/127.0.0.1/tcp/50000")


def admit(admission, times, remote=HERE, now=0.0, connections=0):
    return [admission.admit(connections, remote, now) for _ in range(times)]


def test_limit_max_pending_inbound():
    admission = Admission(Limits(max_pending_inbound=2))
    assert admit(admission, 3) == [True, True, False]
    admission.upgraded()
    assert admit(admission, 2) == [True, False]
    admission.left(upgraded=False)
    assert admit(admission, 2) == [True, False]
    admission.left(upgraded=True)
    assert admit(admission, 1) == [False]
    assert (admission.inbound, admission.pending) == (2, 2)


def test_limit_max_inbound_connections():
    admission = Admission(Limits(max_inbound_connections=2))
    for _ in range(2):
        assert admit(admission, 1) == [True]
        admission.upgraded()
    assert admit(admission, 1) == [False]
    admission.left(upgraded=True)
    assert admit(admission, 1) == [True]


def test_limit_max_connections_counts_ours_too():
    admission = Admission(Limits(max_connections=2))
    assert admit(admission, 1, connections=2) == [False]
    assert admit(admission, 1, connections=1) == [True]


def test_limits_inbound_rate_and_burst_per_ip():
    limits = Limits(inbound_rate_per_ip=2.0, inbound_burst_per_ip=3)
    admission = Admission(limits)
    far = Multiaddr("/ip4/203.0.113.5/tcp/1")
    other = Multiaddr("/ip4/203.0.113.6/tcp/1")
    assert admit(admission, 4, far) == [True] * 3 + [False]
    assert admit(admission, 3, other) == [True] * 3
    assert admit(admission, 2, far, now=0.5) == [True, False]
    assert admit(admission, 10, HERE) == [True] * 10
    assert admit(admission, 10, None) == [True] * 10


def test_a_refused_arrival_is_not_counted():
    admission = Admission(Limits(inbound_rate_per_ip=1.0, inbound_burst_per_ip=1))
    far = Multiaddr("/ip4/203.0.113.5/tcp/1")
    admit(admission, 5, far)
    assert (admission.inbound, admission.pending) == (1, 1)


@pytest.mark.parametrize(
    "address, source",
    [
        ("/ip4/203.0.113.5/tcp/1", "203.0.113.5"),
        ("/ip4/127.0.0.1/tcp/1", None),
        ("/ip4/127.9.9.9/tcp/1", None),
        ("/ip6/::1/tcp/1", None),
        ("/ip6/::ffff:7f00:1/tcp/1", None),
        ("/ip6/::ffff:203.0.113.5/tcp/1", "203.0.113.5"),
        ("/ip6/2001:db8:1:200::1/tcp/1", "2001:db8:1:200::/56"),
        ("/ip6/2001:db8:1:2ff:ffff::1/tcp/1", "2001:db8:1:200::/56"),
        ("/ip6/2001:db8:1:300::1/tcp/1", "2001:db8:1:300::/56"),
        ("/ip6/2001:db8::/tcp/1", "2001:db8::/56"),
        ("/dns4/example.com/tcp/1", None),
        ("/memory/5", None),
    ],
)
def test_whom_an_arrival_is_counted_against(address, source):
    assert source_of(Multiaddr(address)) == source


def test_nobody():
    assert source_of(None) is None
