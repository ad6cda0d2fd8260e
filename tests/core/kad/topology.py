"""A network of peers that only exist as tables: lookups run against it on a clock that jumps.

Honest peers answer with the closest they know. The others lie, are slow, or say nothing.
"""

from heapq import heappop, heappush
from random import Random

from core.kad.people import peer

from anyp2p_core.kad.contacts import Contact
from anyp2p_core.kad.keys import common_prefix, key_of, nearest
from anyp2p_core.kad.query import Query


class Topology:
    """``count`` peers, each with full buckets of at most ``k`` of those that are in it."""

    def __init__(self, count, seed=0, *, k=20, per_group=None):
        self.random = Random(seed)
        self.peers = [peer(seed * 1_000_000 + number) for number in range(count)]
        self.k = k
        self.by_key = {key_of(bytes(one)): one for one in self.peers}
        self.key = {one: key for key, one in self.by_key.items()}
        self.keys = sorted(self.by_key)
        self.tables = {}
        self.behaviour = {}
        """Peer to a function (topology, peer, target) -> (delay, contacts) or None: silence."""
        self.groups = per_group or {}

    def table(self, one):
        """The sorted keys in a peer's table, made when it is first asked."""
        found = self.tables.get(one)
        if found is None:
            own, buckets = self.key[one], {}
            for key in self.keys:
                if key != own:
                    buckets.setdefault(common_prefix(own, key), []).append(key)
            chosen = []
            for bucket in buckets.values():
                chosen += self.random.sample(bucket, self.k) if len(bucket) > self.k else bucket
            found = self.tables[one] = sorted(chosen)
        return found

    def contact(self, one):
        return Contact(one, (), self.groups.get(one, ()))

    def closest(self, target, count=20):
        """The truly closest peers."""
        return [self.by_key[key] for key in nearest(self.keys, target, count)]

    def answer(self, one, target):
        behave = self.behaviour.get(one)
        if behave is not None:
            return behave(self, one, target)
        if one not in self.key:
            return refusing(self, one, target)
        closer = nearest(self.table(one), target, self.k)
        return self.random.uniform(0.02, 0.2), [self.contact(self.by_key[key]) for key in closer]

    def run(self, query, now=0.0):
        """Run a lookup to its end; returns the time it ended at."""
        events = []
        serial = 0
        while True:
            for hop in query.ask(now):
                reply = self.answer(hop.peer, query.target)
                serial += 1
                if reply is not None:
                    heappush(events, (now + reply[0], serial, hop.peer, reply[1]))
            if query.done is not None:
                return now
            due = query.next_timeout()
            if events and events[0][0] <= due:
                now, _, one, closer = heappop(events)
                if closer is None:
                    query.failed(one, now)
                else:
                    query.answered(one, closer, now)
            else:
                now = due
                query.handle_timeout(now)

    def lookup(self, start, target, walk=None, **options):
        """A lookup by one of the peers; returns the query and how long it took."""
        seeds = [self.contact(self.by_key[k]) for k in nearest(self.table(start), target, self.k)]
        query = Query(start, target, seeds, 0.0, walk, **options)
        return query, self.run(query)


def silent(topology, one, target):
    """Never answers."""
    return None


def refusing(topology, one, target):
    """Cannot be reached."""
    return 0.01, None


def slow(topology, one, target):
    """Answers after the time that a peer has."""
    return 30.0, []


def useless(topology, one, target):
    """Answers quickly, with nothing."""
    return 0.01, []


def looping(topology, one, target):
    """Always names the same peers, itself and the asker included."""
    return 0.01, [topology.contact(each) for each in topology.peers[:40]]


def inventing(topology, one, target):
    """Names peers that do not exist, always new ones."""
    first = topology.random.getrandbits(60)
    return 0.01, [Contact(peer(first + n)) for n in range(60)]
