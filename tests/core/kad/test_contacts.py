"""Reading what peers say about peers: bounded before anything is kept."""

from core.kad.people import peer, public

from anyp2p_core.kad.addresses import Reach, group
from anyp2p_core.kad.contacts import (
    MAX_BYTES,
    Contact,
    read_addresses,
    read_contacts,
    write_contact,
)
from anyp2p_core.kad.messages import MAX_ADDRESSES, MAX_CLOSER, Peer
from anyp2p_core.multiaddr import Multiaddr

OWN = peer(0)


def wire(number, *addresses):
    return Peer(bytes(peer(number)), [bytes(address) for address in addresses])


def test_reads_what_it_writes():
    address = public(1)
    written = write_contact(peer(1), [address], True)
    assert written.connection == 1
    assert read_contacts([written], OWN, Reach.ANY) == [
        Contact(peer(1), (address,), (group(address),))
    ]
    assert write_contact(peer(1), [], False).connection == 0


def test_row_80_we_are_never_a_contact():
    assert read_contacts([wire(0, public(1)), wire(1)], OWN, Reach.ANY) == [Contact(peer(1))]


def test_what_cannot_be_read_is_dropped_alone():
    bad = [Peer(b""), Peer(b"x" * 40), Peer(b"\x12\x20short")]
    good = Peer(bytes(peer(1)), [b"", b"\xff\xff", bytes(public(1)), b"\x04\x01"])
    (found,) = read_contacts([*bad, good, *bad], OWN, Reach.ANY)
    assert (found.peer, found.addresses) == (peer(1), (public(1),))


def test_each_peer_once():
    assert len(read_contacts([wire(1), wire(1, public(1)), wire(2)], OWN, Reach.ANY)) == 2


def test_row_78_no_more_than_40_peers_and_16_addresses():
    many = [Peer(bytes(peer(n)), [bytes(public(a)) for a in range(100)]) for n in range(1, 200)]
    found = read_contacts(many, OWN, Reach.ANY)
    assert len(found) == MAX_CLOSER == 40
    assert all(len(one.addresses) == MAX_ADDRESSES == 16 for one in found)
    assert len(read_contacts(many, OWN, Reach.ANY, limit=3)) == 3
    assert len(write_contact(peer(1), [public(a) for a in range(100)], False).addresses) == 16


def test_addresses_of_another_reach_are_dropped():
    private = Multiaddr("/ip4/10.0.0.1/tcp/1")
    peers = [wire(1, public(1), private)]
    assert read_contacts(peers, OWN, Reach.WAN)[0].addresses == (public(1),)
    assert read_contacts(peers, OWN, Reach.LAN)[0].addresses == (private,)
    assert read_contacts(peers, OWN, Reach.LAN)[0].groups == ()


def test_each_address_once():
    assert read_addresses([bytes(public(1)), b"", bytes(public(1))]) == [public(1)]


def test_long_addresses_are_bounded_together():
    long = [bytes(Multiaddr("/dns4/" + "a" * 250 + f".{n}/tcp/1")) for n in range(16)]
    kept = read_addresses(long)
    assert 10 < len(kept) < 16 and sum(len(bytes(one)) for one in kept) <= MAX_BYTES
    assert read_addresses(long[:2] * 50) == kept[:2]
