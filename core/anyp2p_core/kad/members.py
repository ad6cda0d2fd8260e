"""Who is in the table: peers that answered us, as long as they do.

    identify says that a peer is a server --> probe: one FIND_NODE --answered--> table
    a peer answered a request of ours     ---------------------------------------^
    a peer failed, or is no server any more                          --> out of the table

Being told of a peer is not enough, and neither is being connected to it.
"""

from collections.abc import Callable, Iterable
from functools import partial

from ..errors import Error, LocalError
from ..multiaddr import Multiaddr
from ..peer_id import PeerId
from ..service import Context
from .addresses import groups, within
from .config import KadConfig
from .events import DhtTableChanged
from .messages import MAX_ADDRESSES, Message, Type
from .requests import Requests
from .table import Admission, Entry, Table


class Members:
    """Decides who enters the table and who leaves it."""

    def __init__(
        self,
        context: Context,
        config: KadConfig,
        table: Table,
        requests: Requests,
        on_first: Callable[[float], object],
    ) -> None:
        """``on_first``: the table is not empty any more."""
        self._config = config
        self._context = context
        self._on_first = on_first
        self._probes: dict[PeerId, None] = {}
        self._requests = requests
        self._table = table

    def addresses(self, peer: PeerId, now: float) -> list[Multiaddr]:
        """Where a peer, or we ourselves, can be reached in this network; at most 16 addresses."""
        context = self._context
        if peer == context.peer_id:
            return within(context.addresses, self._config.reach)[:MAX_ADDRESSES]
        known = within(context.peers.addresses(peer, now), self._config.reach)
        if not known and (entry := self._table.get(peer)) is not None:
            known = list(entry.addresses)  # the peerstore forgets sooner
        return known[:MAX_ADDRESSES]

    def on_useful(self, peer: PeerId, now: float) -> None:
        """A peer answered a request of ours."""
        table = self._table
        if peer in table:
            table.add(peer, now)
            return
        addresses = tuple(self.addresses(peer, now))
        if not addresses:
            return  # it belongs to another network
        if table.add(peer, now, addresses=addresses, groups=self._groups(peer)) is (
            Admission.ADDED
        ):
            self._tell(peer, True)
            if len(table) == 1:
                self._on_first(now)

    def on_useless(self, peer: PeerId, error: Exception) -> None:
        """A peer did not answer. It stays if that is due to our limits, or if we are offline."""
        if not isinstance(error, LocalError) and self._context.connections():
            self.remove(peer)

    def on_server(self, peer: PeerId, now: float) -> None:
        """A connected peer says that it is a server: see whether it answers."""
        addresses = tuple(self.addresses(peer, now))
        if peer in self._table:
            self._table.moved(peer, addresses)
        elif addresses and self._table.judge(peer, now, self._groups(peer)) is Admission.ADDED:
            self._probe(peer, now)

    def probe_all(self, entries: Iterable[Entry], now: float) -> None:
        """See whether these still answer, as many as may be asked at once."""
        for entry in entries:
            self._probe(entry.peer, now)

    def remove(self, peer: PeerId) -> None:
        """A peer is of no use in the table."""
        if self._table.remove(peer):
            self._tell(peer, False)

    def _probe(self, peer: PeerId, now: float) -> None:
        if peer in self._probes or len(self._probes) >= self._config.max_probes:
            return
        self._probes[peer] = None
        message = Message(Type.FIND_NODE, bytes(self._context.peer_id))
        timeout = self._config.walk.peer_timeout
        known = self.addresses(peer, now)
        try:
            self._requests.send(peer, known, message, timeout, partial(self._on_probed, peer), now)
        except Error as error:
            self._on_probed(peer, None, error, now)

    def _on_probed(
        self, peer: PeerId, answer: Message | None, error: Exception | None, now: float
    ) -> None:
        del self._probes[peer]
        if error is None:
            self.on_useful(peer, now)
        else:
            self.on_useless(peer, error)

    def _groups(self, peer: PeerId) -> tuple[bytes, ...]:
        """The IP groups that a peer is really in, whatever it says."""
        remotes = [connection.remote for connection in self._context.connections(peer)]
        return groups(remote for remote in remotes if remote is not None)

    def _tell(self, peer: PeerId, added: bool) -> None:
        size = len(self._table)
        self._context.emit(DhtTableChanged(self._config.protocol, peer, added, size))
