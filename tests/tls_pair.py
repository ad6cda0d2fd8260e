"""TLS channels over the real library, and peers that show whatever certificate a test wants."""

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from OpenSSL import SSL

from anyp2p.providers.crypto import Cryptography
from anyp2p.providers.entropy import OsEntropy
from anyp2p.providers.tls import Credentials, OpenSsl
from anyp2p_core.certificate import sign_extension
from anyp2p_core.errors import HandshakeError
from anyp2p_core.keys import PrivateKey
from anyp2p_core.tls import Tls, TlsSecurity

CRYPTO = Cryptography()
PROVIDER = OpenSsl()
CLIENT, SERVER, OTHER = (PrivateKey.generate(CRYPTO, OsEntropy()) for _ in range(3))
SECURITY = [TlsSecurity(key, CRYPTO, PROVIDER) for key in (SERVER, CLIENT)]
NOW = 1_800_000_000.0
YAMUX, MPLEX = "/yamux/1.0.0", "/mplex/6.7.0"
LIBP2P = x509.ObjectIdentifier("1.3.6.1.4.1.53594.1.1")
NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "peer")])


def one_by_one(data):
    return [data[n : n + 1] for n in range(len(data))]


class Side:
    """A machine and everything it did, in order."""

    def __init__(
        self, initiator, *, key=None, muxers=(YAMUX,), expected=None, wall=NOW, shown=None
    ):
        self.out, self.events = [], []
        options = {
            "initiator": initiator,
            "expected": expected,
            "muxers": muxers,
            "write": self.out.append,
            "wall": wall,
        }
        if shown is None:
            self.machine = SECURITY[initiator].start(**options)
        else:
            own = Credentials(*shown)
            self.machine = Tls(credentials=own, provider=PROVIDER, crypto=CRYPTO, **options)
        self.machine.on_open = lambda: self.events.append("open")
        self.machine.on_data = lambda data, now: self.events.append(data)
        self.machine.on_end = lambda now: self.events.append("end")

    @property
    def data(self):
        return b"".join(event for event in self.events if isinstance(event, bytes))

    def take(self):
        data = b"".join(self.out)
        self.out.clear()
        return data

    def feed(self, data, cut=lambda data: [data]):
        """The error, None if there is none."""
        try:
            for piece in cut(data):
                self.machine.receive(piece, 2.5)
        except HandshakeError as error:
            return error
        return None

    def feed_eof(self):
        try:
            self.machine.receive_eof()
        except HandshakeError as error:
            return error
        return None


def shake(client, server, cut=lambda data: [data]):
    """Until nobody has anything to say; the errors of both."""
    errors = [None, None]
    silent = False
    while not silent:
        silent = True
        for n, (here, there) in enumerate(((server, client), (client, server))):
            data = here.take()
            if data:
                silent = False
                if errors[n] is None:
                    errors[n] = there.feed(data, cut)
    return errors


def opened(client=None, server=None, cut=lambda data: [data]):
    """A pair after its handshake."""
    pair = Side(True, **client or {}), Side(False, **server or {})
    assert shake(*pair, cut) == [None, None]
    for side in pair:
        assert side.events == ["open"]
        side.events.clear()
    return pair


# Strangers


def libp2p(key, spki, critical=False):
    return (x509.UnrecognizedExtension(LIBP2P, sign_extension(key, spki)), critical)


def spki_of(key):
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def forge(
    extensions=None,
    *,
    identity=OTHER,
    own=None,
    signer=None,
    start=NOW - 3600,
    days=365.0,
    algorithm=None,
):
    """A certificate in DER, and its key.

    ``extensions`` makes the list of (extension, critical) of the SubjectPublicKeyInfo; ``own`` is
    the certificate's key, ``signer`` who signs it instead of that.
    """
    own = own or ec.generate_private_key(ec.SECP256R1())
    signer = signer or own
    make = extensions or (lambda spki: [libp2p(identity, spki)])
    begin = datetime.fromtimestamp(start, UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(NAME)
        .issuer_name(NAME)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=days))
    )
    for extension, critical in make(spki_of(own)):
        builder = builder.add_extension(extension, critical)
    if algorithm is None and not isinstance(signer, ed25519.Ed25519PrivateKey):
        algorithm = SHA256()
    return builder.sign(signer, algorithm).public_bytes(Encoding.DER), own


class Stranger:
    """OpenSSL without any rule of libp2p. The same interface as a ``Side``.

    ``again``: a stranger whose session is to be resumed.
    """

    def __init__(
        self,
        initiator,
        shown=None,
        *,
        chain=(),
        alpn=(YAMUX, "libp2p"),
        newest=SSL.TLS1_3_VERSION,
        believes=True,
        again=None,
        log=None,
    ):
        context = SSL.Context(SSL.TLS_CLIENT_METHOD if initiator else SSL.TLS_SERVER_METHOD)
        context.set_max_proto_version(newest)
        context.set_cipher_list(b"ALL:@SECLEVEL=0")
        context.set_verify(SSL.VERIFY_PEER, lambda *_: believes)
        if shown is not None:
            context.use_certificate(x509.load_der_x509_certificate(shown[0]))
            context.use_privatekey(shown[1])
        for one in chain:
            context.add_extra_chain_cert(x509.load_der_x509_certificate(one))
        names = [name.encode() for name in alpn]
        context.set_alpn_select_callback(lambda _, offered: names[0])
        if log is not None:
            context.set_keylog_callback(log)
        if again is not None:
            context = again.connection.get_context()
        self.connection = SSL.Connection(context, None)
        self.error = None
        if initiator:
            if names:
                self.connection.set_alpn_protos(names)
            if again is not None:
                self.connection.set_session(again.connection.get_session())
            self.connection.set_connect_state()
            self._go_on()
        else:
            self.connection.set_accept_state()

    def _go_on(self):
        try:
            self.connection.do_handshake()
            self.connection.recv(1)
        except SSL.WantReadError:
            pass
        except SSL.Error as error:
            self.error = error

    def feed(self, data, cut=None):
        if self.error is None:
            self.connection.bio_write(data)
            self._go_on()
        return self.error

    def take(self):
        try:
            return self.connection.bio_read(1 << 20)
        except SSL.WantReadError:
            return b""
