"""anyp2p_core.limits"""

import dataclasses

import pytest

from anyp2p_core import Limits

DEFAULTS = {field.name: field.default for field in dataclasses.fields(Limits)}


@pytest.mark.parametrize("name", DEFAULTS)
def test_each_has_a_positive_default_of_its_type(name):
    field = next(field for field in dataclasses.fields(Limits) if field.name == name)
    assert type(field.default) is field.type and field.default > 0
    assert getattr(Limits(), name) == field.default
    assert getattr(Limits(**{name: field.type(7)}), name) == 7


def test_names_only_and_no_others():
    with pytest.raises(TypeError):
        Limits(5)
    with pytest.raises(TypeError):
        Limits(max_unknown=5)
    with pytest.raises(AttributeError):
        Limits().max_unknown = 5


def test_nodes_do_not_share_them():
    first = Limits()
    first.max_peers = 1
    assert Limits().max_peers == 10_000 and Limits() != first


def test_what_is_promised():
    """Figures of the security catalogue, by row."""
    limits = Limits()
    assert limits.upgrade_timeout == 10.0  # 1
    assert (limits.max_peers, limits.max_addresses) == (10_000, 100_000)  # 17, 138
    assert limits.max_protocols_per_peer == 256  # 63
    assert limits.max_addresses_per_peer == 64  # 64
    assert limits.identify_timeout == 5.0  # 67


def test_they_fit_each_other():
    limits = Limits()
    assert limits.max_pending_inbound < limits.max_inbound_connections < limits.max_connections
    assert limits.max_negotiating_streams <= limits.max_inbound_streams
    assert limits.max_stream_window <= limits.max_unread <= limits.max_unread_total
    assert (
        limits.dial_stagger < limits.dial_timeout and limits.upgrade_timeout < limits.dial_timeout
    )
    # Connected peers alone, which are never evicted, leave room for others' addresses.
    assert limits.max_connections * limits.max_addresses_per_peer < limits.max_addresses
