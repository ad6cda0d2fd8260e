"""Two layers as one, told apart by fakes that mark what goes through them."""

import pytest
from fake_layers import NOW, Fake

from anyp2p_core import HandshakeError
from anyp2p_core.layer import Stacked


class Stack:
    """``a`` next to the socket, ``b`` above it, and what came of them."""

    def __init__(self, lower=b"", upper=b""):
        self.wire = []
        self.got = []
        self.opened = []
        self.ended = []
        self.eofs = []
        self.a = Fake(b"a", self.wire.append, lower, self.eofs)

        def make_upper(write):
            self.b = Fake(b"b", write, upper, self.eofs)
            return self.b

        self.both = Stacked(self.a, make_upper, self.wire.append)
        self.both.on_open = self.opened.append
        self.both.on_data = lambda data, now: self.got.append((data, now))
        self.both.on_end = self.ended.append

    def sent(self):
        data = b"".join(self.wire)
        self.wire.clear()
        return data

    def data(self):
        assert {now for _, now in self.got} <= {NOW}
        data = b"".join(data for data, _ in self.got)
        self.got.clear()
        return data


def test_two_layers_that_are_open_at_once():
    stack = Stack()
    both = stack.both
    assert both.open and stack.sent() == b""
    assert both.seal([b"x", b"y"]) == b"<a<bxy>>"
    both.receive(b"<a<bhello>>", NOW)
    assert stack.data() == b"hello"
    assert stack.opened == []  # it was open before anybody could have been told


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    ("lower", "upper", "first", "then"),
    [
        # The handshakes: what is said before and after the other side's were received.
        (b"key", b"", b"key", b""),
        (b"", b"KEY", b"", b"<aKEY>"),
        (b"key", b"KEY", b"key", b"<aKEY>"),
    ],
)
def test_it_opens_once_when_both_are_open(lower, upper, first, then, whole):
    stack = Stack(lower, upper)
    both = stack.both
    # The words of the upper layer wait for the lower one, also if it is open already.
    assert stack.sent() == first
    assert not both.open
    data = lower + upper + b"text"
    pieces = [data] if whole else [data[pos : pos + 1] for pos in range(len(data))]
    for piece in pieces:
        assert stack.opened == [] or both.open
        both.receive(piece, NOW)
    assert stack.sent() == then
    assert both.open and stack.opened == [NOW]
    assert stack.data() == b"text"
    both.receive(b"more", NOW)
    assert stack.opened == [NOW]


def test_what_comes_up_at_the_moment_of_opening_goes_to_whoever_is_told_last():
    stack = Stack(b"k", b"K")
    seen = []

    def opened(now):
        stack.both.on_data = lambda data, now: seen.append(data)

    stack.both.on_open = opened
    stack.both.receive(b"kKx", NOW)
    assert seen == [b"x"] and stack.got == []
    assert stack.both.on_data is stack.b.on_data


def test_words_of_the_layers_go_before_what_is_sealed():
    stack = Stack()
    stack.both.receive(b"?", NOW)  # to the lower layer
    assert stack.sent() == b"!"
    stack.b._write(b"pong")  # from the upper layer, at any time
    assert stack.both.seal([b"data"]) == b"<apong<bdata>>"
    assert stack.both.seal([b"data"]) == b"<a<bdata>>"
    stack.b._write(b"pong")
    stack.both.receive(b"", NOW)
    assert stack.sent() == b"<apong>"


@pytest.mark.parametrize("lower", [b"", b"k"])
def test_a_refusal_of_the_upper_layer_goes_out(lower):
    stack = Stack(lower)
    stack.a.receive = lambda data, now: stack.a.on_data(data, now)  # marks nothing
    if lower:
        with pytest.raises(HandshakeError, match="b'b' was refused"):
            stack.both.receive(b"#", NOW)
        assert stack.sent() == b"k"  # it cannot be said: the lower layer is not open
    else:
        with pytest.raises(HandshakeError, match="b'b' was refused"):
            stack.both.receive(b"ok#not seen", NOW)
        assert stack.sent() == b"<aX>"
        assert stack.data() == b"ok"


def test_a_refusal_of_the_lower_layer_goes_out():
    stack = Stack()
    with pytest.raises(HandshakeError, match="b'a' was refused"):
        stack.both.receive(b"ok#not seen", NOW)
    assert stack.sent() == b"X"
    assert stack.data() == b"ok"


@pytest.mark.parametrize(
    ("lower", "upper", "came", "error"),
    [
        (b"", b"", b"", None),
        (b"k", b"", b"", "b'a' ended"),
        (b"", b"K", b"", "b'b' ended"),
        (b"k", b"K", b"", "b'a' ended"),
        (b"k", b"K", b"k", "b'b' ended"),
        (b"k", b"K", b"kK", None),
    ],
)
def test_the_end_of_the_transport(lower, upper, came, error):
    stack = Stack(lower, upper)
    stack.both.receive(came, NOW)
    if error is None:
        stack.both.receive_eof()
        assert stack.eofs == [b"a", b"b"]
    else:
        with pytest.raises(HandshakeError, match=error):
            stack.both.receive_eof()


def test_the_end_that_either_layer_is_told():
    stack = Stack()
    stack.both.receive(b"x~", NOW)
    assert stack.ended == [NOW]
    stack.a.receive = lambda data, now: stack.a.on_data(data, now)
    stack.both.receive(b"~", NOW)
    assert stack.ended == [NOW, NOW]
    assert stack.both.on_end is stack.a.on_end is stack.b.on_end


@pytest.mark.parametrize(
    ("lower", "upper", "came", "last"),
    [
        (b"", b"", b"", b"<aB>A"),  # the inner one first, inside the outer one
        (b"k", b"", b"", b""),
        (b"", b"K", b"", b"<aK>A"),  # what was said goes out; the upper one has no last words
        (b"k", b"K", b"", b""),
        (b"k", b"K", b"k", b"A"),
        (b"k", b"K", b"kK", b"<aB>A"),
    ],
)
def test_last_words(lower, upper, came, last):
    stack = Stack(lower, upper)
    stack.wire.clear()
    stack.a.receive(came[:1], NOW)  # behind the back of the two: what is said meanwhile waits
    if came[1:]:
        stack.both.receive(came[1:], NOW)
    stack.wire.clear()
    assert stack.both.finish() == last


def test_last_words_behind_what_was_said():
    stack = Stack()
    stack.b._write(b"pong")
    assert stack.both.finish() == b"<apongB>A"


def test_three_layers_of_which_two_are_one():
    wire, got, opened = [], [], []
    low = Fake(b"a", wire.append, b"k")
    middle = Stacked(low, lambda write: Fake(b"b", write, b"K"), wire.append)
    three = Stacked(middle, lambda write: Fake(b"c", write), wire.append)
    three.on_open = opened.append
    three.on_data = lambda data, now: got.append(data)
    three.on_end = lambda now: got.append(now)
    assert not three.open and wire == [b"k"]
    for byte in b"kK":
        assert not opened
        three.receive(bytes((byte,)), NOW)
    assert three.open and opened == [NOW]
    assert wire == [b"k", b"<aK>"]
    assert three.seal([b"x"]) == b"<a<b<cx>>>"
    three.receive(b"<a<b<cy>>>", NOW)
    assert got == [b"y"]
    three.receive(b"~", NOW)
    assert got == [b"y", NOW]
    three.receive_eof()
    assert three.finish() == b"<a<bC>><aB>A"


def test_nothing_is_told_to_nobody():
    stack = Stacked(Fake(b"a", [].append, b"k"), lambda write: Fake(b"b", write), lambda data: None)
    stack.receive(b"kdata~", NOW)
    assert stack.open
