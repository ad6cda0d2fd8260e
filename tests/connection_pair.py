"""Two connections joined in memory, without nodes."""

from node_pair import CRYPTO, LOCAL, REMOTE, make_key

from anyp2p.providers.entropy import OsEntropy
from anyp2p.providers.tls import OpenSsl
from anyp2p_core.limits import Limits
from anyp2p_core.mplex import PROTOCOL as MPLEX, Mplex
from anyp2p_core.plaintext import PlaintextSecurity
from anyp2p_core.security import NoiseSecurity
from anyp2p_core.timers import Timers
from anyp2p_core.tls import TlsSecurity
from anyp2p_core.upgrade import UpgradedConnection
from anyp2p_core.yamux import PROTOCOL as YAMUX, Yamux

KEYS = (make_key(), make_key())
YAMUXES = {YAMUX: Yamux}
MPLEXES = {MPLEX: Mplex}


def noise(key):
    return NoiseSecurity(key, CRYPTO, OsEntropy())


def plaintext(key):
    return PlaintextSecurity(key, CRYPTO)


def tls(key):
    return TlsSecurity(key, CRYPTO, OpenSsl())


class Owner:
    """What a connection needs, and a record of what it said."""

    def __init__(self, security, muxers, **limits):
        self.limits = Limits(**limits)
        self.security = {one.protocol: one for one in security}
        self.muxers = dict(muxers)
        self.timers = Timers()
        self.unread = 0
        self.upgraded = 0
        self.sheds = 0
        self.touched = 0
        self.streams = []
        self.protocols = ["/app"]
        self.call_at = self.timers.call_at
        self.cancel = self.timers.cancel

    def supports(self, protocol):
        return protocol in self.protocols

    def wall(self, now):
        return now + 1_000_000_000.0

    def touch(self, connection):
        self.touched += 1

    def shed(self, now):
        self.sheds += 1

    def on_upgraded(self, connection, now):
        assert connection.muxer is not None
        self.upgraded += 1
        self.upgraded_at = now

    def on_stream(self, connection, stream, protocol, now):
        self.streams.append((stream, protocol))


class Link:
    """Two connections; ``a`` dialed ``b``. ``carriers`` are what is below them."""

    def __init__(
        self,
        ours=(noise,),
        theirs=(noise,),
        *,
        expected=KEYS[1],
        run=True,
        muxers=(YAMUXES, YAMUXES),
        carriers=(None, None),
        **limits,
    ):
        self.now = 1.0
        self.piece = 1 << 30
        self.owner_a = Owner([make(KEYS[0]) for make in ours], muxers[0], **limits)
        self.owner_b = Owner([make(KEYS[1]) for make in theirs], muxers[1], **limits)
        self.a = UpgradedConnection(
            1,
            initiator=True,
            owner=self.owner_a,
            local=REMOTE,
            remote=LOCAL,
            expected=expected.peer_id if expected else None,
            now=self.now,
            carrier=carriers[0],
        )
        self.b = UpgradedConnection(
            2,
            initiator=False,
            owner=self.owner_b,
            local=LOCAL,
            remote=REMOTE,
            expected=None,
            now=self.now,
            carrier=carriers[1],
        )
        if run:
            self.run()

    def run(self):
        while self.a.wants_write or self.b.wants_write:
            for here, there in ((self.a, self.b), (self.b, self.a)):
                data = here.data_to_send(self.now)
                for pos in range(0, len(data), self.piece):
                    there.receive(data[pos : pos + self.piece], self.now)

    def open(self, *protocols, opener=None, **options):
        """Open a stream by ``a``; what became of it is in the list."""
        told = []
        stream = (opener or self.a).open_stream(
            protocols or ("/app",),
            lambda stream, protocol, now: told.append(protocol),
            lambda error, now: told.append(error),
            self.now,
            **options,
        )
        return stream, told

    def wait(self, seconds):
        self.now += seconds
        for owner in (self.owner_a, self.owner_b):
            owner.timers.run(self.now)
        self.run()

    @property
    def timers(self):
        return self.owner_a.timers.reasons() + self.owner_b.timers.reasons()
