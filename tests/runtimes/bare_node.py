"""A peer without a Host: dial an address, ping who answers, print the round trip in seconds."""

import select
import socket
import sys
from time import monotonic as now

from anyp2p.providers.crypto import Cryptography
from anyp2p.providers.entropy import OsChoice, OsEntropy
from anyp2p_core import Multiaddr, Node, PrivateKey, events

crypto, entropy = Cryptography(), OsEntropy()
key = PrivateKey.generate(crypto, entropy)
node = Node(key, crypto=crypto, entropy=entropy, choice=OsChoice())
node.dial(None, [Multiaddr(sys.argv[1])], now())
sock = socket.socket()
finished = False
while not finished:
    while outputs := [*node.writable(), *node.poll()]:  # until there is nothing left to do
        for item in outputs:
            match item:
                case int(conn):
                    sock.sendall(node.data_to_send(conn, now()))
                case events.Dial(conn, at):
                    try:
                        sock.connect((at.get("ip4"), int(at.get("tcp") or 0)))
                        node.connected(conn, None, at, now())
                    except OSError as error:
                        node.dial_failed(conn, error, now())
                case events.PeerConnected(peer=peer):
                    node.ping(peer, now())
                case events.PingSucceeded(conn=conn, rtt=rtt):
                    print(rtt)
                    node.close(conn, now())
                case events.CloseConnection(conn):
                    sock.close()
                    node.disconnected(conn, None, now())
                case events.DialFailed() | events.PingFailed() | events.ConnectionClosed():
                    finished = True
                    if item.error is not None:
                        print(item.error, file=sys.stderr)
    patience = max(0.0, (node.next_timeout() or 0.0) - now())
    if not finished and select.select([sock], [], [], patience)[0]:
        if data := sock.recv(65536):
            node.receive(conn, data, now())
        else:
            node.receive_eof(conn, now())
    node.handle_timeout(now())
sock.close()
