package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/security/insecure"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/p2p/transport/websocket"
	"github.com/multiformats/go-multiaddr"
)

// channels says what lies between a socket and a stream.
type channels struct {
	security, muxers          string // names with commas between, the preferred one first
	psk                       string // file with the key of a private network
	webCert, webKey, webTrust string // files of WebSocket over TLS
}

var shortNames = map[protocol.ID]string{
	noise.ID: "noise", libp2ptls.ID: "tls", insecure.ID: "plaintext", yamux.ID: "yamux", mplexID: "mplex",
}

func (c *channels) options() ([]libp2p.Option, error) {
	// Dialling from the listening port would meet its own TIME_WAIT sockets on quick reconnects.
	options := []libp2p.Option{libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport())}
	server, client := &tls.Config{}, &tls.Config{}
	if c.webCert != "" {
		pair, err := tls.LoadX509KeyPair(c.webCert, c.webKey)
		if err != nil {
			return nil, err
		}
		server.Certificates = []tls.Certificate{pair}
	}
	if c.webTrust != "" {
		text, err := os.ReadFile(c.webTrust)
		if err != nil {
			return nil, err
		}
		client.RootCAs = x509.NewCertPool()
		if !client.RootCAs.AppendCertsFromPEM(text) {
			return nil, errors.New("no certificate in " + c.webTrust)
		}
	}
	options = append(options, libp2p.Transport(websocket.New,
		websocket.WithTLSConfig(server), websocket.WithTLSClientConfig(client)))
	if c.psk == "" {
		options = append(options, libp2p.Transport(libp2pquic.NewTransport))
	} else { // without QUIC, which would go around it
		file, err := os.Open(c.psk)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		key, err := pnet.DecodeV1PSK(file)
		if err != nil {
			return nil, err
		}
		options = append(options, libp2p.PrivateNetwork(key))
	}
	for name := range strings.SplitSeq(c.security, ",") {
		constructor := map[string]libp2p.Option{
			"noise":     libp2p.Security(noise.ID, noise.New),
			"tls":       libp2p.Security(libp2ptls.ID, libp2ptls.New),
			"plaintext": libp2p.Security(insecure.ID, insecure.NewWithIdentity),
		}[name]
		if constructor == nil {
			return nil, fmt.Errorf("cannot do --security %s", name)
		}
		options = append(options, constructor)
	}
	for name := range strings.SplitSeq(c.muxers, ",") {
		muxer := map[string]libp2p.Option{
			"yamux": libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
			"mplex": libp2p.Muxer(mplexID, mplexer{}),
		}[name]
		if muxer == nil {
			return nil, fmt.Errorf("cannot do --muxers %s", name)
		}
		options = append(options, muxer)
	}
	return options, nil
}

// channelOf names what a connection consists of: tcp+noise+yamux, or quic-v1.
func channelOf(conn network.Conn) string {
	has := func(code int) bool {
		_, err := conn.RemoteMultiaddr().ValueForProtocol(code)
		return err == nil
	}
	socket := "tcp"
	switch {
	case has(multiaddr.P_QUIC_V1):
		return "quic-v1"
	case has(multiaddr.P_WSS) || has(multiaddr.P_TLS):
		socket = "wss"
	case has(multiaddr.P_WS):
		socket = "ws"
	}
	state := conn.ConnState()
	return strings.Join([]string{socket, shortNames[state.Security], shortNames[state.StreamMultiplexer]}, "+")
}
