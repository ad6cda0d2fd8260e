"""anyp2p_core.channel: what secure channels do alike, seen through one that refuses "bad"."""

from typing import cast

import pytest

from anyp2p_core.channel import Channel
from anyp2p_core.crypto import Crypto
from anyp2p_core.errors import HandshakeError, PeerIdMismatch
from anyp2p_core.peer_id import PeerId

PEER = PeerId(b"\x12\x20" + bytes(32))


class Example(Channel):
    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(cast("Crypto", None), None, [].append)

    def __repr__(self) -> str:
        return f"<Example, {self._state}>"

    def receive(self, error: BaseException | None) -> None:
        if self._failure is not None:
            self._raise_again()
        try:
            if error is not None:
                raise error
        except BaseException as caught:
            self._remember(caught)
            raise


def test_nobody_listens_at_first() -> None:
    channel = Example()
    assert not channel.open and channel.muxer is None
    channel.on_open()
    channel.on_data(b"x", 1.0)
    channel.on_end(1.0)
    assert channel.finish() == b""


def test_it_shows_its_state() -> None:
    channel = Example()
    assert repr(channel) == "<Example, in the handshake>"
    channel.open, channel.peer = True, PEER
    assert repr(channel) == f"<Example, open to {PEER}>"
    with pytest.raises(HandshakeError):
        channel.receive(HandshakeError("garbage"))
    assert repr(channel) == "<Example, failed: garbage>"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (HandshakeError("wrong"), HandshakeError),
        (PeerIdMismatch("wrong"), PeerIdMismatch),
        (ValueError("wrong"), HandshakeError),  # of a callback
        (KeyboardInterrupt("wrong"), HandshakeError),
    ],
)
def test_a_failure_is_for_ever(error: BaseException, kind: type[Exception]) -> None:
    channel = Example()
    channel.receive(None)
    with pytest.raises(type(error), match="wrong") as caught:
        channel.receive(error)
    assert caught.value is error
    for again in (None, HandshakeError("another")):
        with pytest.raises(kind, match="wrong") as raised:
            channel.receive(again)
        assert type(raised.value) is kind and raised.value is not error


def test_row_39_it_is_a_secret() -> None:
    with pytest.raises(TypeError, match="Example holds keys"):
        Example().__reduce_ex__(2)
