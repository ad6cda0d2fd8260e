// Command peer is the go conformance peer: JSON lines on stdin and stdout, logs on stderr.
//
//	harness -> {"id":1,"cmd":"ping","peer":"12D3..."}
//	        <- {"id":1,"ok":true,"rtts":[0.0004]}
//
// This file starts it and serves; channels.go has what lies below, commands.go the commands.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
)

const (
	echoProtocol       protocol.ID = "/echo/1.0.0"
	perfProtocol       protocol.ID = "/perf/1.0.0"
	afterEOFProtocol   protocol.ID = "/conformance/after-eof/1.0.0"
	resetMeProtocol    protocol.ID = "/conformance/reset-me/1.0.0"
	watchResetProtocol protocol.ID = "/conformance/watch-reset/1.0.0"

	chunk          = 64 << 10
	commandTimeout = 60 * time.Second
)

var keyTypes = map[string]int{
	"ed25519": crypto.Ed25519, "secp256k1": crypto.Secp256k1, "ecdsa": crypto.ECDSA, "rsa": crypto.RSA,
}

type fields map[string]any

// node is the running peer and what identify told it so far.
type node struct {
	host.Host
	out sync.Mutex

	mu         sync.Mutex
	identified map[peer.ID]event.EvtPeerIdentificationCompleted
	failed     map[peer.ID]error

	dht         *dht.IpfsDHT // nil unless started with --dht
	dhtProtocol protocol.ID

	pubsub *broadcast // nil unless started with --pubsub
}

// emit prints one JSON line.
func (n *node) emit(line fields) {
	text, err := json.Marshal(line)
	if err != nil {
		log.Fatal(err)
	}
	n.out.Lock()
	defer n.out.Unlock()
	os.Stdout.Write(append(text, '\n'))
}

// run answers one command.
func (n *node) run(c *command) {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	c.start = time.Now()
	answer, err := fields{}, fmt.Errorf("unknown command %s", c.Cmd)
	if f := commands[c.Cmd]; f != nil {
		answer, err = f(n, network.WithNoDial(ctx, "dial first"), c)
	} else if f := dhtCommands[c.Cmd]; f != nil && n.dht == nil {
		err = errors.New("started without --dht")
	} else if f != nil {
		answer, err = f(n, ctx, c)
	} else if f := pubsubCommands[c.Cmd]; f != nil && n.pubsub == nil {
		err = errors.New("started without --pubsub")
	} else if f != nil {
		answer, err = f(n, ctx, c)
	}
	if err != nil {
		answer = fields{"error": strings.ReplaceAll(err.Error(), "\n", " ")}
	} else if answer == nil {
		answer = fields{}
	}
	answer["id"], answer["ok"] = c.ID, err == nil
	n.emit(answer)
}

// watchIdentify keeps the newest identify result of each peer.
func (n *node) watchIdentify() error {
	sub, err := n.EventBus().Subscribe([]any{
		new(event.EvtPeerIdentificationCompleted), new(event.EvtPeerIdentificationFailed),
	}, eventbus.BufSize(4096))
	if err != nil {
		return err
	}
	go func() {
		for e := range sub.Out() {
			n.mu.Lock()
			switch e := e.(type) {
			case event.EvtPeerIdentificationCompleted:
				// A push may repeat only what changed.
				if old, ok := n.identified[e.Peer]; ok && old.Conn == e.Conn {
					if e.ObservedAddr == nil {
						e.ObservedAddr = old.ObservedAddr
					}
					if e.SignedPeerRecord == nil {
						e.SignedPeerRecord = old.SignedPeerRecord
					}
				}
				n.identified[e.Peer] = e
				delete(n.failed, e.Peer)
			case event.EvtPeerIdentificationFailed:
				n.failed[e.Peer] = e.Reason
			}
			n.mu.Unlock()
		}
	}()
	return nil
}

// serve registers what every conformance peer answers; identify and ping are the library's.
func (n *node) serve() {
	handle := func(id protocol.ID, f func(network.Stream) error) {
		n.SetStreamHandler(id, func(s network.Stream) {
			if f(s) != nil {
				s.Reset()
				return
			}
			s.Close()
		})
	}
	handle(echoProtocol, func(s network.Stream) error {
		_, err := io.CopyBuffer(s, s, make([]byte, chunk))
		return err
	})
	handle(perfProtocol, func(s network.Stream) error {
		var header [8]byte
		if _, err := io.ReadFull(s, header[:]); err != nil {
			return err
		}
		if _, err := drain(s); err != nil {
			return err
		}
		return writeZeros(s, binary.BigEndian.Uint64(header[:]))
	})
	handle(afterEOFProtocol, func(s network.Stream) error {
		hash := sha256.New()
		if _, err := io.Copy(hash, s); err != nil {
			return err
		}
		_, err := s.Write([]byte(hex.EncodeToString(hash.Sum(nil))))
		return err
	})
	handle(resetMeProtocol, func(s network.Stream) error {
		_, err := io.ReadFull(s, make([]byte, 1))
		s.Reset()
		return err
	})
	handle(watchResetProtocol, func(s network.Stream) error {
		if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
			return err
		}
		if _, err := s.Write([]byte("y")); err != nil {
			return err
		}
		_, err := drain(s)
		if err == nil {
			n.emit(fields{"event": "stream_eof", "peer": s.Conn().RemotePeer()})
		} else if reset, code := resetCode(err); reset {
			n.emit(fields{"event": "stream_reset", "peer": s.Conn().RemotePeer(), "code": code})
		}
		return err
	})
}

// drain reads to EOF and counts; the buffer of io.Discard itself would be small.
func drain(r io.Reader) (int64, error) {
	return io.CopyBuffer(struct{ io.Writer }{io.Discard}, r, make([]byte, chunk))
}

func writeZeros(w io.Writer, n uint64) error {
	zeros := make([]byte, chunk)
	for n > 0 {
		part := min(n, chunk)
		if _, err := w.Write(zeros[:part]); err != nil {
			return err
		}
		n -= part
	}
	return nil
}

// pattern is the echo data: byte i is (i*7 + i/256) % 251.
var pattern = func() func(int) []byte {
	period := make([]byte, 256*251)
	for i := range period {
		period[i] = byte((i*7 + i/256) % 251)
	}
	return func(size int) []byte {
		return bytes.Repeat(period, size/len(period)+1)[:size]
	}
}()

// resetCode tells whether err is a reset of the stream by the other side, and its code or nil.
func resetCode(err error) (reset bool, code any) {
	var s *network.StreamError
	if errors.As(err, &s) && s.Remote {
		return true, s.ErrorCode
	}
	return errors.Is(err, network.ErrReset), nil
}

func libraryVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if dep.Path == "github.com/libp2p/go-libp2p" {
				return dep.Version
			}
		}
	}
	return "unknown"
}

func start(listen []string, keyType, agent string, layers *channels) (*node, error) {
	kind, ok := keyTypes[keyType]
	if !ok {
		return nil, fmt.Errorf("unknown key type %s", keyType)
	}
	key, _, err := crypto.GenerateKeyPair(kind, 2048) // the size counts for RSA only
	if err != nil {
		return nil, err
	}
	options, err := layers.options()
	if err != nil {
		return nil, err
	}
	h, err := libp2p.New(append(options,
		libp2p.Identity(key),
		libp2p.ListenAddrStrings(listen...),
		libp2p.UserAgent(agent),
		libp2p.ResourceManager(&network.NullResourceManager{}),
		libp2p.ConnectionManager(connmgr.NullConnMgr{}),
		libp2p.DisableRelay(),
		libp2p.DisableMetrics(),
	)...)
	if err != nil {
		return nil, err
	}
	n := &node{
		Host:       h,
		identified: map[peer.ID]event.EvtPeerIdentificationCompleted{},
		failed:     map[peer.ID]error{},
	}
	n.serve()
	return n, n.watchIdentify()
}

func main() {
	log.SetOutput(os.Stderr)
	var listen []string
	flag.Func("listen", "address to listen on, may be repeated", func(s string) error {
		listen = append(listen, s)
		return nil
	})
	keyType := flag.String("key", "ed25519", "kind of the random identity")
	layers := &channels{}
	flag.StringVar(&layers.security, "security", "noise", "of noise, tls and plaintext")
	flag.StringVar(&layers.muxers, "muxers", "yamux", "of yamux and mplex")
	flag.StringVar(&layers.psk, "psk", "", "file with the key of a private network")
	flag.StringVar(&layers.webCert, "web-cert", "", "file with our certificate for WebSocket over TLS")
	flag.StringVar(&layers.webKey, "web-key", "", "file with the key of that certificate")
	flag.StringVar(&layers.webTrust, "web-trust", "", "file with the certificates that we trust there")
	dhtMode := flag.String("dht", "off", "off, server or client")
	dhtProtocol := flag.String("dht-protocol", "/ipfs/kad/1.0.0", "name of the DHT's protocol")
	router := flag.String("pubsub", "off", "off, gossipsub or floodsub")
	policy := flag.String("pubsub-policy", "sign", "sign, unsigned or nosign")
	score := flag.String("pubsub-score", "off", "off or on")
	flag.Parse()
	if listen == nil {
		listen = []string{"/ip4/127.0.0.1/tcp/0"}
	}
	agent := "conformance-go/" + libraryVersion()
	n, err := start(listen, *keyType, agent, layers)
	if err != nil {
		log.Fatal(err)
	}
	if err = n.startDHT(*dhtMode, *dhtProtocol); err != nil {
		log.Fatal(err)
	}
	if err = n.startPubSub(*router, *policy, *score == "on"); err != nil {
		log.Fatal(err)
	}
	addresses, err := peer.AddrInfoToP2pAddrs(&peer.AddrInfo{ID: n.ID(), Addrs: n.Addrs()})
	if err != nil {
		log.Fatal(err)
	}
	n.emit(fields{
		"event": "ready", "peer": n.ID(), "addresses": addresses, "agent": agent,
		"implementation": "go-libp2p " + libraryVersion(),
	})
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		c := &command{ID: json.RawMessage("null"), Count: 1, Size: 1024}
		if err := json.Unmarshal(lines.Bytes(), c); err != nil {
			json.Unmarshal(lines.Bytes(), &struct{ ID *json.RawMessage }{&c.ID})
			n.emit(fields{"id": c.ID, "ok": false, "error": err.Error()})
		} else if c.Cmd == "stop" {
			n.run(c)
			break
		} else {
			go n.run(c)
		}
	}
	os.Exit(0)
}
