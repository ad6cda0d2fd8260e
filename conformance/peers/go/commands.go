package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	"github.com/multiformats/go-multistream"
)

// command is one line of stdin.
type command struct {
	ID               json.RawMessage
	Cmd, Address     string
	Peer             peer.ID
	Count, Size      int
	Upload, Download uint64
	Protocols        []protocol.ID
	Code             network.StreamErrorCode

	Addresses             []string
	CID                   string
	Key, Value, Multihash hexBytes
	Timeout               float64

	Topic, Seed string
	Data        hexBytes

	start time.Time
}

type handler func(*node, context.Context, *command) (fields, error)

var commands = map[string]handler{
	"dial": (*node).dial, "disconnect": (*node).disconnect, "connections": (*node).connections,
	"ping": (*node).ping, "identify": (*node).identify,
	"echo": onStream(echoProtocol, echo), "perf": onStream(perfProtocol, perf),
	"half_close":    onStream(afterEOFProtocol, halfClose),
	"reset_by_them": onStream(resetMeProtocol, resetByThem),
	"reset_by_us":   onStream(watchResetProtocol, resetByUs),
	"many":          (*node).many, "streams": (*node).streams, "connects": (*node).connects,
	"cpu": (*node).cpu, "open_stream": (*node).openStream,
	"stop": func(*node, context.Context, *command) (fields, error) { return nil, nil },
}

// connect makes a connection to exactly this address, without waiting for identify.
func (n *node) connect(ctx context.Context, address string) (peer.ID, error) {
	info, err := peer.AddrInfoFromString(address)
	if err != nil {
		return "", err
	}
	if n.Network().Connectedness(info.ID) == network.Connected {
		return info.ID, nil
	}
	n.Peerstore().ClearAddrs(info.ID)
	n.Peerstore().AddAddrs(info.ID, info.Addrs, peerstore.TempAddrTTL)
	n.Network().(*swarm.Swarm).Backoff().Clear(info.ID)
	_, err = n.Network().DialPeer(ctx, info.ID)
	return info.ID, err
}

// open gives a stream on an existing connection; like the library's users it does not wait for
// the agreement when identify said that the peer speaks the protocol.
func (n *node) open(ctx context.Context, p peer.ID, id protocol.ID) (network.Stream, error) {
	s, err := n.NewStream(ctx, p, id)
	if err == nil {
		err = setDeadline(ctx, s)
	}
	return s, err
}

// openAgreed gives a stream whose protocol the other side has confirmed.
func (n *node) openAgreed(ctx context.Context, p peer.ID, ids ...protocol.ID) (network.Stream, error) {
	s, err := n.Network().NewStream(ctx, p)
	if err != nil {
		return nil, err
	}
	var id protocol.ID
	if err = setDeadline(ctx, s); err == nil {
		id, err = multistream.SelectOneOf(ids, s)
	}
	if err == nil {
		err = s.SetProtocol(id)
	}
	if err != nil {
		s.Reset()
		return nil, err
	}
	return s, nil
}

func setDeadline(ctx context.Context, s network.Stream) error {
	deadline, _ := ctx.Deadline()
	return s.SetDeadline(deadline)
}

// onStream makes a command of what happens on one new stream, which is reset when that fails.
func onStream(id protocol.ID, f func(network.Stream, *command) (fields, error)) handler {
	return func(n *node, ctx context.Context, c *command) (fields, error) {
		s, err := n.open(ctx, c.Peer, id)
		if err != nil {
			return nil, err
		}
		answer, err := f(s, c)
		if err != nil {
			s.Reset()
		}
		return answer, err
	}
}

// exchange writes data, half-closes and reads to EOF, all at the same time.
func exchange(s network.Stream, data []byte) ([]byte, error) {
	written := make(chan error, 1)
	go func() {
		_, err := s.Write(data)
		if err == nil {
			err = s.CloseWrite()
		}
		written <- err
	}()
	got := bytes.NewBuffer(make([]byte, 0, len(data)+bytes.MinRead))
	_, err := got.ReadFrom(s)
	if err == nil {
		err = <-written
	}
	if err != nil {
		s.Reset()
		return nil, err
	}
	return got.Bytes(), s.Close()
}

func (n *node) dial(ctx context.Context, c *command) (fields, error) {
	p, err := n.connect(ctx, c.Address)
	return fields{"peer": p}, err
}

func (n *node) disconnect(_ context.Context, c *command) (fields, error) {
	return nil, n.Network().ClosePeer(c.Peer)
}

func (n *node) connections(context.Context, *command) (fields, error) {
	names := map[string][]string{}
	for _, conn := range n.Network().Conns() {
		p := conn.RemotePeer().String()
		names[p] = append(names[p], channelOf(conn))
	}
	return fields{"peers": append([]peer.ID{}, n.Network().Peers()...), "channels": names}, nil
}

func (n *node) ping(ctx context.Context, c *command) (fields, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := ping.Ping(ctx, n, c.Peer)
	rtts := []float64{}
	for range c.Count {
		result, ok := <-results
		if !ok {
			return nil, errors.New("the ping timed out")
		}
		if result.Error != nil {
			return nil, result.Error
		}
		rtts = append(rtts, result.RTT.Seconds())
	}
	return fields{"rtts": rtts}, nil
}

func (n *node) identify(ctx context.Context, c *command) (fields, error) {
	service := n.Host.(interface{ IDService() identify.IDService }).IDService()
	conns := n.Network().ConnsToPeer(c.Peer)
	if len(conns) == 0 {
		return nil, errors.New("not connected")
	}
	for _, conn := range conns {
		select {
		case <-service.IdentifyWait(conn):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	// The event with the result reaches us a little after the wait is over.
	for range 100 {
		n.mu.Lock()
		e, done := n.identified[c.Peer]
		n.mu.Unlock()
		if done && !e.Conn.IsClosed() {
			answer := fields{
				"peer": e.Peer, "agent": e.AgentVersion, "protocol_version": e.ProtocolVersion,
				"protocols": append([]protocol.ID{}, e.Protocols...), "addresses": e.ListenAddrs,
				"observed": e.ObservedAddr, "signed_record": e.SignedPeerRecord != nil, "key_type": nil,
			}
			if key := n.Peerstore().PubKey(e.Peer); key != nil {
				answer["key_type"] = strings.ToLower(key.Type().String())
			}
			return answer, nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return nil, fmt.Errorf("there is no identify result: %v", n.failed[c.Peer])
}

func echo(s network.Stream, c *command) (fields, error) {
	data := pattern(c.Size)
	got, err := exchange(s, data)
	seconds := time.Since(c.start).Seconds()
	hash := sha256.Sum256(got)
	return fields{
		"sent": len(data), "received": len(got), "sha256": hex.EncodeToString(hash[:]),
		"equal": bytes.Equal(got, data), "seconds": seconds,
	}, err
}

func perf(s network.Stream, c *command) (fields, error) {
	if _, err := s.Write(binary.BigEndian.AppendUint64(nil, c.Download)); err != nil {
		return nil, err
	}
	if err := writeZeros(s, c.Upload); err != nil {
		return nil, err
	}
	if err := s.CloseWrite(); err != nil {
		return nil, err
	}
	first, err := io.ReadFull(s, make([]byte, 1))
	if err != nil && err != io.EOF {
		return nil, err
	}
	uploaded := time.Now()
	rest, err := drain(s)
	if err != nil {
		return nil, err
	}
	return fields{
		"upload_seconds":   uploaded.Sub(c.start).Seconds(),
		"download_seconds": time.Since(uploaded).Seconds(),
		"received":         int64(first) + rest,
	}, s.Close()
}

func halfClose(s network.Stream, _ *command) (fields, error) {
	data := pattern(100_000)
	got, err := exchange(s, data)
	hash := sha256.Sum256(data)
	return fields{"equal": string(got) == hex.EncodeToString(hash[:])}, err
}

func resetByThem(s network.Stream, _ *command) (fields, error) {
	defer s.Reset()
	if _, err := s.Write([]byte("x")); err != nil {
		return nil, err
	}
	if err := s.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return nil, err
	}
	_, err := drain(s)
	reset, code := resetCode(err)
	return fields{"reset": reset, "code": code}, nil
}

// resetByUs resets with the optional "code" of the command.
func resetByUs(s network.Stream, c *command) (fields, error) {
	if _, err := s.Write([]byte("x")); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
		return nil, err
	}
	return nil, s.ResetWithError(c.Code)
}

func (n *node) many(ctx context.Context, c *command) (fields, error) {
	data := pattern(c.Size)
	var done atomic.Int64
	var opening, all sync.WaitGroup
	opening.Add(c.Count)
	for range c.Count {
		all.Go(func() {
			s, err := n.openAgreed(ctx, c.Peer, echoProtocol)
			opening.Done()
			if err != nil {
				return
			}
			opening.Wait()
			if got, err := exchange(s, data); err == nil && bytes.Equal(got, data) {
				done.Add(1)
			}
		})
	}
	all.Wait()
	return fields{"done": done.Load()}, nil
}

func (n *node) streams(ctx context.Context, c *command) (fields, error) {
	data := pattern(32)
	for range c.Count {
		s, err := n.open(ctx, c.Peer, echoProtocol)
		if err != nil {
			return nil, err
		}
		got, err := exchange(s, data)
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(got, data) {
			return nil, errors.New("the echo differs")
		}
	}
	return fields{"seconds": time.Since(c.start).Seconds()}, nil
}

func (n *node) connects(ctx context.Context, c *command) (fields, error) {
	var total time.Duration
	for range c.Count {
		start := time.Now()
		p, err := n.connect(ctx, c.Address)
		if err != nil {
			return nil, err
		}
		total += time.Since(start)
		if err = n.Network().ClosePeer(p); err != nil {
			return nil, err
		}
	}
	return fields{"seconds": total.Seconds()}, nil
}

func (n *node) cpu(context.Context, *command) (fields, error) {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return nil, err
	}
	seconds := time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
	answer := fields{"seconds": seconds, "rss": nil}
	var size, resident int
	statm, _ := os.ReadFile("/proc/self/statm")
	if count, _ := fmt.Sscan(string(statm), &size, &resident); count == 2 {
		answer["rss"] = resident * os.Getpagesize()
	}
	return answer, nil
}

func (n *node) openStream(ctx context.Context, c *command) (fields, error) {
	s, err := n.openAgreed(ctx, c.Peer, c.Protocols...)
	if err != nil {
		return nil, err
	}
	return fields{"protocol": s.Protocol()}, s.Close()
}
