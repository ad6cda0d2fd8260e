"""Everything of aioquic that its public interface does not offer, in one place.

Specs: https://www.rfc-editor.org/rfc/rfc9000 (QUIC), rfc9001 (QUIC and TLS)
       https://github.com/libp2p/specs/blob/master/tls/tls.md

aioquic raises its flow control windows by itself and never asks a client for a certificate. Here
windows follow what the core grants, both sides must show exactly one certificate, and what a peer
can make us keep or compute is bounded further. ``check`` runs when this file is imported: a version
of aioquic that lacks what is used is refused with one sentence.
"""

import logging
import re
from collections.abc import Callable, Iterable
from inspect import isfunction, signature
from typing import Any

from anyp2p.extras import MissingExtra

try:
    import aioquic
    from aioquic import tls
    from aioquic._buffer import Buffer
    from aioquic.quic import connection as quic, events, packet_builder, stream
    from aioquic.quic.configuration import QuicConfiguration
    from aioquic.quic.packet import QuicErrorCode, QuicFrameType, encode_quic_retry
    from aioquic.quic.packet_builder import QuicDeliveryState
    from aioquic.quic.retry import QuicRetryTokenHandler
    from cryptography.x509 import load_der_x509_certificate
except ImportError as error:
    raise MissingExtra(
        "QUIC needs the package 'aioquic': pip install 'anyp2p[quic]'", name="aioquic"
    ) from error

__all__ = [
    "PEER",
    "CertificateRefused",
    "Connection",
    "QuicConfiguration",
    "QuicErrorCode",
    "QuicRetryTokenHandler",
    "encode_quic_retry",
    "events",
    "load_der_x509_certificate",
]

OLDEST = (1, 7, 1)
"""Of aioquic. What is older asks for client certificates differently, or stalls streams."""
MAX_CRYPTO = 64 * 1024
"""Handshake bytes of one encryption level; a certificate of an RSA identity needs 4 KiB."""
MAX_RANGES = 512
"""Gaps in what arrived of a stream: each costs aioquic time for every frame that follows."""
MAX_CRYPTO_RANGES = 64
PEER = ("peer", 0)
"""The only address that aioquic ever sees: who is where is the endpoint's business."""

SILENT = logging.Logger("anyp2p.quic", logging.CRITICAL + 1)
"""aioquic warns of what every stranger can provoke."""

_MIGRATION_OFF = bytes((0x0C, 0x00))
"""Transport parameter disable_active_migration."""


class CertificateRefused(tls.Alert):
    """Whatever is wrong with a certificate: the peer is not told."""

    description = tls.AlertDescription.bad_certificate


class CertificateMissing(tls.Alert):
    description = tls.AlertDescription.certificate_required


class Context(tls.Context):
    """TLS for libp2p: both ends show one certificate, and ``judge`` decides."""

    judge: Callable[[list[bytes]], object]

    def _set_peer_certificate(self, certificate: tls.Certificate) -> None:
        self.judge([der for der, _ in certificate.certificates])
        super()._set_peer_certificate(certificate)

    def _server_handle_certificate(self, input_buf: Buffer) -> None:
        super()._server_handle_certificate(input_buf)
        if self._peer_certificate is None:
            raise CertificateMissing("the peer showed no certificate")

    def _client_handle_finished(self, input_buf: Buffer, output_buf: Buffer) -> None:
        if self._certificate_request is None:
            raise CertificateMissing("the peer asked for no certificate")
        super()._client_handle_finished(input_buf, output_buf)


class Connection(quic.QuicConnection):
    """A connection whose windows grow when told to, and whose peer must show a certificate."""

    def __init__(
        self,
        judge: Callable[[list[bytes]], object],
        max_streams: int,
        *,
        configuration: QuicConfiguration,
        original: bytes | None = None,
        retried: bytes | None = None,
    ) -> None:
        super().__init__(
            configuration=configuration,
            original_destination_connection_id=original,
            retry_source_connection_id=retried,
        )
        self._judge = judge
        self._grants: dict[int, stream.QuicStream] = {}
        silent: Any = SILENT
        self._logger = self._loss._logger = silent
        for limit, value in (
            (self._local_max_streams_bidi, max_streams),
            (self._local_max_streams_uni, 0),
        ):
            limit.value = limit.sent = value

    # What sessions ask.

    @property
    def pending(self) -> Any:
        """The queue of events."""
        return self._events

    @property
    def started(self) -> bool:
        """Whether there is an address to send to."""
        return bool(self._network_paths)

    @property
    def ended(self) -> Any:
        """Why the connection ends, or None."""
        return self._close_event

    @property
    def ended_by_us(self) -> bool:
        """Whether the peer is still to be told of the end."""
        return self._close_pending

    @property
    def smoothed_rtt(self) -> float | None:
        loss = self._loss
        return loss._rtt_smoothed if loss._rtt_initialized else None

    def timer(self) -> float | None:
        """When ``handle_timer`` wants to be called."""
        return self.get_timer() if self._close_at is not None else None

    def undelivered(self) -> int:
        total = 0
        for one in self._streams.values():
            sender = one.sender
            if not sender.is_finished and sender._reset_error_code is None:
                total += len(sender._buffer) + (sender._buffer_fin is not None)
        return total

    def new_stream(self) -> int | None:
        """The id of a new stream, None while the peer takes no more."""
        stream_id = self._local_next_stream_id_bidi
        if stream_id // 4 >= self._remote_max_streams_bidi:
            return None
        self._get_or_create_stream_for_send(stream_id)
        return stream_id

    def room(self, stream_id: int, ahead: int, in_flight: int) -> int:
        """What the peer's windows allow beyond what waits already, at most ``ahead`` bytes.

        Nothing while more than half of that waits: few large pieces cost less than many small ones.
        """
        one = self._streams.get(stream_id)
        if one is None or self._loss.bytes_in_flight >= in_flight:
            return 0
        sender = one.sender
        stop: int = sender._buffer_stop
        waiting: int = stop - sender.highest_offset
        if waiting * 2 > ahead:
            return 0
        room = ahead - waiting
        room = min(room, one.max_stream_data_remote - stop)
        room = min(room, self._remote_max_data - self._remote_max_data_used)
        return room if room > 0 else 0

    def has_stream(self, stream_id: int) -> bool:
        return stream_id in self._streams

    def missing(self, stream_id: int) -> int:
        """Bytes that a stream's window counts and that were not delivered."""
        one = self._streams.get(stream_id)
        if one is None:
            return 0
        size: int = one.receiver.highest_offset - one.receiver.starting_offset()
        return size

    def grant_stream(self, stream_id: int, limit: int) -> None:
        one = self._streams.get(stream_id)
        if one is not None:
            one.max_stream_data_local = limit
            self._grants[stream_id] = one

    def grant(self, limit: int) -> None:
        self._local_max_data.value = limit

    # What aioquic does its own way.

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        context: Any = self.tls
        context.__class__ = Context
        context.judge = self._judge
        context._request_client_certificate = True
        # Each costs a key pair in every handshake, and one of these two is known everywhere.
        context._supported_groups = [tls.Group.X25519, tls.Group.SECP256R1]

    def _serialize_transport_parameters(self) -> bytes:
        return super()._serialize_transport_parameters() + _MIGRATION_OFF

    def _handle_crypto_frame(self, context: Any, frame_type: int, buf: Buffer) -> None:
        start = buf.tell()
        if buf.pull_uint_var() + buf.pull_uint_var() > MAX_CRYPTO:
            raise quic.QuicConnectionError(
                QuicErrorCode.CRYPTO_BUFFER_EXCEEDED, frame_type, "too long a handshake"
            )
        buf.seek(start)
        super()._handle_crypto_frame(context, frame_type, buf)
        receiver = self._crypto_streams[context.epoch].receiver
        if len(receiver._ranges) > MAX_CRYPTO_RANGES:
            raise quic.QuicConnectionError(
                QuicErrorCode.CRYPTO_BUFFER_EXCEEDED, frame_type, "too many gaps"
            )

    def _get_or_create_stream(self, frame_type: int, stream_id: int) -> stream.QuicStream:
        one = super()._get_or_create_stream(frame_type, stream_id)
        if len(one.receiver._ranges) > MAX_RANGES:
            raise quic.QuicConnectionError(
                QuicErrorCode.INTERNAL_ERROR, frame_type, "too many gaps"
            )
        return one

    def _write_stream_limits(self, builder: Any, space: Any, stream: Any) -> None:
        """Nothing for each stream: ``_write_connection_limits`` knows which have a new limit."""

    def _write_connection_limits(self, builder: Any, space: Any) -> None:
        grants = self._grants
        while grants:
            stream_id, one = next(iter(grants.items()))
            if not one.receiver.is_finished:
                buf = builder.start_frame(
                    QuicFrameType.MAX_STREAM_DATA,
                    capacity=quic.MAX_STREAM_DATA_FRAME_CAPACITY,
                    handler=self._on_max_stream_data_delivery,
                    handler_args=(one,),
                )
                buf.push_uint_var(stream_id)
                buf.push_uint_var(one.max_stream_data_local)
                one.max_stream_data_local_sent = one.max_stream_data_local
            del grants[stream_id]
        data = self._local_max_data
        if data.value != data.sent:
            self._write_limit(builder, data)
        streams = self._local_max_streams_bidi
        # Told when half of them are used, so that many that close make one frame.
        if streams.value != streams.sent and (
            streams.sent - streams.used < streams.value - streams.sent
        ):
            self._write_limit(builder, streams)

    def _write_limit(self, builder: Any, limit: Any) -> None:
        buf = builder.start_frame(
            limit.frame_type,
            capacity=quic.CONNECTION_LIMIT_FRAME_CAPACITY,
            handler=self._on_connection_limit_delivery,
            handler_args=(limit,),
        )
        buf.push_uint_var(limit.value)
        limit.sent = limit.value

    def _on_max_stream_data_delivery(self, delivery: Any, stream: Any) -> None:
        if delivery is not QuicDeliveryState.ACKED:
            self._grants[stream.stream_id] = stream


_USED: tuple[tuple[object, tuple[str, ...]], ...] = (
    (
        tls.Context,
        (
            "_set_peer_certificate", "_server_handle_certificate", "_client_handle_finished",
        ),
    ),
    (
        quic.QuicConnection,
        (
            "_initialize", "_serialize_transport_parameters", "_handle_crypto_frame",
            "_get_or_create_stream", "_write_stream_limits", "_write_connection_limits",
            "_on_max_stream_data_delivery", "_on_connection_limit_delivery",
            "_get_or_create_stream_for_send",
        ),
    ),
    (quic, ("MAX_STREAM_DATA_FRAME_CAPACITY", "CONNECTION_LIMIT_FRAME_CAPACITY")),
    (
        tls.Context(is_client=True),
        ("_request_client_certificate", "_certificate_request", "_peer_certificate",
         "_supported_groups"),
    ),
    (
        quic.QuicConnection(configuration=QuicConfiguration()),
        (
            "_events", "_network_paths", "_close_event", "_close_pending", "_loss", "_logger",
            "_streams", "_local_max_data", "_local_max_streams_bidi",
            "_local_max_streams_uni", "_local_next_stream_id_bidi", "_remote_max_streams_bidi",
            "_remote_max_data", "_remote_max_data_used", "_crypto_streams",
            "_close_at", "host_cid",
        ),
    ),
    (
        quic.QuicConnection(configuration=QuicConfiguration())._loss,
        ("_rtt_smoothed", "_rtt_initialized", "_logger", "bytes_in_flight"),
    ),
    (
        stream.QuicStream(0),
        ("max_stream_data_local", "max_stream_data_local_sent", "max_stream_data_remote"),
    ),
    (
        stream.QuicStream(0).sender,
        ("_buffer", "_buffer_stop", "_buffer_fin", "_reset_error_code", "highest_offset"),
    ),
    (stream.QuicStream(0).receiver, ("_ranges", "highest_offset", "starting_offset")),
    (packet_builder.QuicPacketBuilder, ("start_frame",)),
)  # fmt: skip


_OVERRIDDEN = ((Context, tls.Context), (Connection, quic.QuicConnection))


def check(
    used: Iterable[tuple[object, tuple[str, ...]]] = _USED,
    overridden: Iterable[tuple[type, type]] = _OVERRIDDEN,
    version: str = aioquic.__version__,
) -> None:
    """Raise ImportError if aioquic is too old, or is not made as this file takes it to be."""
    if tuple(int(part) for part in re.findall(r"\d+", version)[:3]) < OLDEST:
        raise _wrong(version, "is older than " + ".".join(map(str, OLDEST)))
    for owner, names in used:
        for name in names:
            if not hasattr(owner, name):
                raise _wrong(version, f"has no {name}, which is used here")
    for ours, theirs in overridden:
        for name, method in vars(ours).items():
            if name[:2] == "__" or not isfunction(method) or not hasattr(theirs, name):
                continue
            other = getattr(theirs, name)
            if [*signature(method).parameters] != [*signature(other).parameters]:
                raise _wrong(version, f"calls {name} with other arguments")


def _wrong(version: str, problem: str) -> ImportError:
    text = f"aioquic {version} {problem}: pip install 'anyp2p[quic]' installs one that fits"
    return ImportError(text, name="aioquic")


check()
