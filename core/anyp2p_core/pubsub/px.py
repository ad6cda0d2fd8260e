"""Peer exchange: who is pruned is told of others, and we connect to those that we are told of.

    PRUNE with records --signed by the peer it names, not connected--> waiting --> 8 dials at once

An address of the internet is dialed once a minute at most, whoever names it: nobody may aim us at
a victim. Peers that are named without a record are ignored.
"""

from collections import deque

from ..dial_budget import DialBudget
from ..envelope import open_peer_record
from ..errors import Error
from ..events import DialFailed, Event, PeerConnected
from ..multiaddr import Multiaddr
from ..peer_id import PeerId
from ..service import Context
from .config import GossipConfig

MAX_RECORD = 2048
"""Bytes of a record that we pass on."""
MAX_RECORDS = 10 * 1024
"""Bytes of the records in one PRUNE of ours."""


class PeerExchange:
    """Dials on hearsay."""

    def __init__(self, context: Context, config: GossipConfig) -> None:
        self._budget = DialBudget(rate=float(config.px_connectors), burst=config.px_pending,
                                  interval=config.px_interval)  # fmt: skip
        self._config = config
        self._context = context
        self._dials: dict[int, None] = {}
        self._ended = 0
        """A dial that was over at once."""
        self._waiting: deque[tuple[PeerId, list[Multiaddr]]] = deque()

    @property
    def pending(self) -> int:
        """Peers that wait for a dial, or are being dialed."""
        return len(self._waiting) + len(self._dials)

    def records(self, peers: list[PeerId]) -> list[tuple[bytes, bytes]]:
        """What to tell of peers, as far as they have told it themselves."""
        found = []
        room = MAX_RECORDS
        for peer in peers:
            info = self._context.peers.get(peer)
            record = info.record if info is not None else b""
            if record and len(record) <= min(MAX_RECORD, room):
                room -= len(record)
                found.append((bytes(peer), record))
        return found

    def learn(self, named: list[tuple[bytes, bytes]], now: float) -> None:
        """A peer told of others."""
        context, config = self._context, self._config
        chosen = context.choice.sample(named, config.prune_peers)
        for raw, sealed in chosen:
            if not sealed or self.pending >= config.px_pending:
                continue
            try:
                record = open_peer_record(sealed, context.crypto)
            except Error:
                continue
            peer = record.peer_id
            if bytes(peer) != raw or peer == context.peer_id or context.connections(peer):
                continue
            self._waiting.append((peer, record.addresses))
        self._dial(now)

    def on_event(self, event: Event, now: float) -> None:
        """A dial has ended."""
        if isinstance(event, PeerConnected | DialFailed):
            if event.dial in self._dials:
                del self._dials[event.dial]
                self._dial(now)
            else:
                self._ended = event.dial

    def _dial(self, now: float) -> None:
        context = self._context
        while self._waiting and len(self._dials) < self._config.px_connectors:
            peer, addresses = self._waiting.popleft()
            allowed = self._budget.allowed(addresses, now)
            if not allowed or context.connections(peer):
                continue
            try:
                dial = context.dial(peer, allowed, now, hearsay=True)
            except Error:
                continue
            if dial != self._ended:
                self._dials[dial] = None
