package main

import (
	"context"
	"errors"
	"net"

	"github.com/libp2p/go-libp2p/core/network"
	mplex "github.com/libp2p/go-mplex"
)

const mplexID = "/mplex/6.7.0"

// mplexer brings back the muxer that the library has dropped: its module is still there.
type mplexer struct{}

func (mplexer) NewConn(c net.Conn, isServer bool, scope network.PeerScope) (network.MuxedConn, error) {
	m, err := mplex.NewMultiplex(c, !isServer, nil)
	return mplexConn{m}, err
}

type mplexConn struct{ *mplex.Multiplex }

func (c mplexConn) CloseWithError(network.ConnErrorCode) error { return c.Close() }

func (mplexConn) As(any) bool { return false }

func (c mplexConn) OpenStream(ctx context.Context) (network.MuxedStream, error) {
	s, err := c.NewStream(ctx)
	return wrapMplex(s, err)
}

func (c mplexConn) AcceptStream() (network.MuxedStream, error) {
	s, err := c.Accept()
	return wrapMplex(s, err)
}

func wrapMplex(s *mplex.Stream, err error) (network.MuxedStream, error) {
	if err != nil {
		return nil, err
	}
	return mplexStream{s}, nil
}

type mplexStream struct{ *mplex.Stream }

func (s mplexStream) Read(b []byte) (int, error) {
	n, err := s.Stream.Read(b)
	if errors.Is(err, mplex.ErrStreamReset) {
		err = network.ErrReset
	}
	return n, err
}

func (s mplexStream) Write(b []byte) (int, error) {
	n, err := s.Stream.Write(b)
	if errors.Is(err, mplex.ErrStreamReset) {
		err = network.ErrReset
	}
	return n, err
}

func (s mplexStream) ResetWithError(network.StreamErrorCode) error { return s.Reset() }
