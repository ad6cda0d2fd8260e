"""Which values are valid, which is best, and who has to be corrected."""

import pytest
from core.kad.people import peer
from hypothesis import given, strategies as st
from node_pair import CRYPTO, make_key

from anyp2p_core.crypto import KeyType
from anyp2p_core.errors import DecodeError, LocalError, TimedOut
from anyp2p_core.kad.messages import MAX_KEY, MAX_VALUE, Record
from anyp2p_core.kad.records import AcceptAll, PublicKeyValidator, Search, Validators, split_key

WALL = 1_700_000_000.0


class Longest:
    """Values of letters are valid, the longest is best; counts what it validates."""

    def __init__(self):
        self.validated = 0

    def validate(self, key, value, wall):
        self.validated += 1
        if not value.isalpha():
            raise DecodeError("not letters")

    def select(self, key, values):
        return max(range(len(values)), key=lambda index: (len(values[index]), -index))


class Broken:
    """A validator with bugs."""

    def validate(self, key, value, wall):
        if value == b"late":
            raise TimedOut("a RemoteError that is no DecodeError")
        if value != b"ok":
            raise RecursionError("a bug")

    def select(self, key, values):
        raise KeyError("a bug")


def make_search(key=b"/n/k", quorum=0):
    longest = Longest()
    validators = Validators({"n": longest, "any": AcceptAll(), "broken": Broken()})
    return Search(key, validators, quorum), longest


KEYS = [
    (b"/pk/x", ("pk", b"x")),
    (b"/ipns//x/", ("ipns", b"/x/")),
    (b"/example/data/1", ("example", b"data/1")),
    (b"/a/\xff\x00", ("a", b"\xff\x00")),
]
NO_KEYS = [
    b"", b"a", b"/", b"//", b"//x", b"/a", b"/a/", b"a/b", b"a/b/c", b"\xff\xfe", b"/\xff/x",
    b"\x12\x20" + bytes(32), b"/n/" + bytes(MAX_KEY),
]  # fmt: skip


@pytest.mark.parametrize(("key", "parts"), KEYS)
def test_keys(key, parts):
    assert split_key(key) == parts


@pytest.mark.parametrize("key", NO_KEYS)
def test_row_74_keys_without_a_namespace(key):
    validators = Validators({"n": AcceptAll()})
    with pytest.raises(DecodeError):
        validators.validate(key, b"value", WALL)
    with pytest.raises(DecodeError):
        validators.is_better(key, b"value", b"other")


def test_row_74_no_validator_no_record():
    validators = Validators({"n": AcceptAll()})
    validators.validate(b"/n/k", b"value", WALL)
    assert validators.namespaces == ("n",)
    with pytest.raises(DecodeError, match="no validator for the namespace 'unknown'"):
        validators.validate(b"/unknown/k", b"value", WALL)
    with pytest.raises(DecodeError, match="the limit is 65536"):
        validators.validate(b"/n/k", bytes(MAX_VALUE + 1), WALL)


@pytest.mark.parametrize("name", ["", "a/b", "\xe9"])
def test_namespaces_that_are_none(name):
    with pytest.raises(LocalError):
        Validators({name: AcceptAll()})


def test_public_keys():
    validators = Validators({"pk": PublicKeyValidator(CRYPTO)})
    for kind in (KeyType.ED25519, KeyType.RSA):  # in the id, and as its hash
        public, other = make_key(kind=kind).public, make_key(kind=kind).public
        key = b"/pk/" + bytes(public.peer_id)
        validators.validate(key, public.encode(), WALL)
        for value in (other.encode(), public.encode()[:-1], b"", b"\x08\x01\x12\x01x"):
            with pytest.raises(DecodeError):
                validators.validate(key, value, WALL)
        assert not validators.is_better(key, public.encode(), public.encode())
    assert PublicKeyValidator(CRYPTO).select(key, [b"x", b"y"]) == 0


def test_row_81_a_validator_with_a_bug_says_no():
    validators = Validators({"broken": Broken()})
    validators.validate(b"/broken/k", b"ok", WALL)
    with pytest.raises(DecodeError, match="the validator of broken failed: a bug"):
        validators.validate(b"/broken/k", b"value", WALL)
    with pytest.raises(TimedOut):
        validators.validate(b"/broken/k", b"late", WALL)
    with pytest.raises(DecodeError, match="failed"):
        validators.is_better(b"/broken/k", b"value", b"other")


def test_anything_is_as_good_as_anything():
    validators = Validators({"any": AcceptAll()})
    assert not validators.is_better(b"/any/k", b"value", b"other")


def test_the_best_value_and_who_is_behind():
    search, _ = make_search()
    assert search.best is None
    assert search.behind([peer(1)]) == []
    assert search.holders() == []
    assert search.add(peer(1), Record(b"/n/k", b"bb"), WALL)
    assert not search.add(peer(2), Record(b"/n/k", b"a"), WALL)
    assert search.add(peer(3), Record(b"/n/k", b"ccc"), WALL)
    assert not search.add(peer(4), Record(b"/n/k", b"ccc"), WALL)
    assert search.best == b"ccc"
    assert search.holders() == [peer(3), peer(4)]
    assert search.gave(peer(3)) and not search.gave(peer(99))
    assert search.behind(map(peer, range(1, 6))) == [peer(1), peer(2), peer(5)]
    assert (search.valid, search.rejected) == (4, 0)


def test_the_quorum_counts_valid_values():
    search, _ = make_search(quorum=2)
    search.add(peer(1), Record(b"/n/k", b"a"), WALL)
    with pytest.raises(DecodeError):
        search.add(peer(2), Record(b"/n/k", b"1"), WALL)
    assert not search.enough
    search.add(peer(3), Record(b"/n/k", b"bb"), WALL)
    assert search.enough
    search, _ = make_search()
    search.add(peer(1), Record(b"/n/k", b"a"), WALL)
    assert not search.enough


def test_row_79_a_valid_record_for_another_key():
    search, longest = make_search()
    with pytest.raises(DecodeError, match="another key"):
        search.add(peer(1), Record(b"/n/other", b"valid"), WALL)
    assert (search.best, search.rejected, longest.validated) == (None, 1, 0)
    assert search.behind([peer(1)]) == []


def test_equal_values_are_validated_once():
    search, longest = make_search()
    for number in range(100):
        search.add(peer(number), Record(b"/n/k", b"same"), WALL)
    assert longest.validated == 1
    for number in range(100, 200):
        with pytest.raises(DecodeError):
            search.add(peer(number), Record(b"/n/k", b"123"), WALL)
    assert longest.validated == 2
    assert (search.valid, search.rejected) == (100, 100)


def test_a_validator_that_cannot_choose():
    search, _ = make_search(b"/broken/k")
    assert search.add(peer(1), Record(b"/broken/k", b"ok"), WALL)
    assert not search.add(peer(2), Record(b"/broken/k", b"ok"), WALL)


@given(st.lists(st.sampled_from([b"a", b"bb", b"ccc", b"1", b"22"]), max_size=30))
def test_the_best_does_not_depend_on_the_order(values):
    search, _ = make_search()
    for number, value in enumerate(values):
        try:
            search.add(peer(number), Record(b"/n/k", value), WALL)
        except DecodeError:
            assert value.isdigit()
    letters = [value for value in values if value.isalpha()]
    assert search.best == (max(letters, key=len) if letters else None)
    wrong = [peer(n) for n, value in enumerate(values) if value != search.best]
    assert search.behind(map(peer, range(len(values)))) == (wrong if letters else [])
