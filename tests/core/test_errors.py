"""anyp2p_core.errors"""

import copy
import pickle

import pytest

import anyp2p_core
from anyp2p_core import errors
from anyp2p_core.errors import (
    ConnectionLost,
    DecodeError,
    DialError,
    Error,
    HandshakeError,
    IncompleteRead,
    LimitReached,
    ListenError,
    LocalError,
    MuxerError,
    NegotiationError,
    PeerIdMismatch,
    RemoteError,
    StreamReset,
    TimedOut,
)

CLASSES = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, Error)]


def make(error):
    return error("why", b"part") if error is IncompleteRead else error("why")


@pytest.mark.parametrize(
    ("error", "bases"),
    [
        (LocalError, (Error,)),
        (LimitReached, (LocalError,)),
        (RemoteError, (Error,)),
        (DecodeError, (RemoteError, ValueError)),
        (NegotiationError, (RemoteError,)),
        (HandshakeError, (RemoteError, ConnectionError)),
        (PeerIdMismatch, (HandshakeError,)),
        (MuxerError, (RemoteError, ConnectionError)),
        (TimedOut, (RemoteError, TimeoutError)),
        (ConnectionLost, (ConnectionError,)),
        (StreamReset, (ConnectionResetError,)),
        (IncompleteRead, (EOFError,)),
        (DialError, (ConnectionError,)),
        (ListenError, (OSError,)),
    ],
)
def test_each_is_also_what_a_person_would_catch(error, bases):
    assert all(issubclass(error, base) for base in (*bases, Error, Exception))


def test_a_fault_is_the_callers_or_the_peers():
    assert not [
        one for one in CLASSES if issubclass(one, LocalError) and issubclass(one, RemoteError)
    ]


def test_all_are_exported():
    assert {one.__name__ for one in CLASSES} <= set(anyp2p_core.__all__)


@pytest.mark.parametrize("error", CLASSES)
def test_messages_are_kept(error):
    assert str(make(error)) == "why" and make(error).args[0] == "why"


def test_what_some_of_them_carry():
    assert MuxerError("why").code == 1 and MuxerError("why", 2).code == 2
    assert StreamReset("why").code == 0 and StreamReset("why", 9).code == 9
    assert IncompleteRead("why", b"part").partial == b"part"
    assert DialError("why").attempts == ()
    assert DialError("why", (("/memory/1", "no"),)).attempts == (("/memory/1", "no"),)


@pytest.mark.parametrize("error", CLASSES)
def test_they_can_be_copied_and_pickled(error):
    """Other threads and processes raise them again."""
    for again in (copy.copy(make(error)), pickle.loads(pickle.dumps(make(error)))):
        assert type(again) is error and str(again) == "why" and vars(again) == vars(make(error))
