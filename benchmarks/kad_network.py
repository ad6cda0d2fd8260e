"""A Kademlia network without connections: the real lookup machine against tables made from truth.

Every peer's table holds, for each bucket, a random k of all peers that belong there: what perfect
maintenance would lead to. Tables are made when they are first needed, so that 25,000 peers fit.
"""

import random
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from hashlib import sha256

from anyp2p_core.kad.contacts import Contact
from anyp2p_core.kad.keys import Key, key_of, nearest
from anyp2p_core.kad.query import Query, Walk
from anyp2p_core.peer_id import PeerId

CLOSER = 20
"""Peers in an answer."""

Answer = Callable[[Key, Key], Sequence[Key]]
"""What a peer answers for a target."""


class Network:
    """So many peers, with k peers in each bucket, decided by a seed."""

    def __init__(self, size: int, k: int, seed: int) -> None:
        self.k = k
        self.draw = random.Random(seed)
        names = (b"%d peer %d" % (seed, number) for number in range(size))
        peers = [PeerId(b"\x12\x20" + sha256(name).digest()) for name in names]
        self.contacts = {key_of(bytes(peer)): Contact(peer) for peer in peers}
        self.keys: list[Key] = sorted(self.contacts)
        self.key_of = {contact.peer: key for key, contact in self.contacts.items()}
        self._tables: dict[Key, list[Key]] = {}

    def table(self, own: Key) -> list[Key]:
        """The keys that a peer knows, sorted."""
        known = self._tables.get(own)
        if known is None:
            known = self._tables[own] = self._fill(own)
        return known

    def _fill(self, own: Key) -> list[Key]:
        keys, known = self.keys, []
        low, high, bit = 0, len(keys), 255
        while high - low > 1:
            # All keys from low to high agree with ours above this bit; those that do not here are
            # a bucket.
            middle = bisect_left(keys, (own >> bit | 1) << bit, low, high)
            if own >> bit & 1:
                first, last, low = low, middle, middle
            else:
                first, last, high = middle, high, middle
            if last - first <= self.k:
                known += keys[first:last]
            else:
                known += [keys[place] for place in self.draw.sample(range(first, last), self.k)]
            bit -= 1
        known.sort()
        return known

    def answer(self, own: Key, target: Key) -> Sequence[Key]:
        """What an honest peer answers."""
        return nearest(self.table(own), target, CLOSER)

    def lookup(self, own: Key, target: Key, walk: Walk, answer: Answer | None = None) -> Query:
        """Walk from a peer to a target; answers come in the order of the questions."""
        answer = answer or self.answer
        contacts = self.contacts
        seeds = [contacts[key] for key in nearest(self.table(own), target, walk.k)]
        query = Query(contacts[own].peer, target, seeds, 0.0, walk)
        waiting = deque(query.ask(0.0))
        while query.done is None:
            hop = waiting.popleft()
            closer = answer(self.key_of[hop.peer], target)
            query.answered(hop.peer, [contacts[key] for key in closer], 0.0)
            waiting.extend(query.ask(0.0))
        return query
