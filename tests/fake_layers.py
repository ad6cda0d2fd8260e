"""Layers that mark what goes through them."""

from anyp2p_core import HandshakeError, LocalError

NOW = 5.0


class Fake:
    """A layer that is open once it got ``key``, and that puts its mark around what it seals.

    What comes up loses the mark; ``?`` from the peer is answered with ``!``, ``#`` is a fault that
    is complained about with ``X``, ``~`` is the peer's end.
    """

    def __init__(self, mark, write, key=b"", log=None):
        self.mark = mark
        self.log = log if log is not None else []
        self.open = not key
        self.on_open = self.on_data = self.on_end = lambda *_: None
        self._key = key
        self._write = write
        if key:
            write(key)

    def receive(self, data, now):
        for pos in range(len(data)):
            byte = data[pos : pos + 1]
            if not self.open:
                assert self._key.startswith(byte), (self.mark, byte)
                self._key = self._key[1:]
                if not self._key:
                    self.open = True
                    self.on_open(now)
            elif byte == b"?":
                self._write(b"!")
            elif byte == b"#":
                self._write(b"X")
                raise HandshakeError(f"{self.mark} was refused")
            elif byte == b"~":
                self.on_end(now)
            elif byte not in b"<>" + self.mark:
                self.on_data(byte, now)

    def receive_eof(self):
        self.log.append(self.mark)
        if not self.open:
            raise HandshakeError(f"{self.mark} ended too early")

    def seal(self, chunks):
        assert self.open, self.mark
        data = b"".join(chunks)
        return b"<" + self.mark + data + b">" if data else b""

    def finish(self):
        return self.mark.upper() if self.open else b""


class Maker:
    """Makes such layers. ``made``: each with whether it dials, and where to."""

    def __init__(self, mark, key=b""):
        self.mark = mark
        self.key = key
        self.made = []
        self.problem = ""

    def check(self, route):
        if self.problem:
            raise LocalError(self.problem)

    def start(self, *, initiator, route, write):
        layer = Fake(self.mark, write, self.key)
        self.made.append((layer, initiator, route))
        return layer
