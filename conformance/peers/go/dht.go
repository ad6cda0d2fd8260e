package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multihash"
)

// bootstrapPatience is how long dht_bootstrap waits until a peer is in the table.
const bootstrapPatience = 10 * time.Second

var dhtCommands = map[string]handler{
	"dht_bootstrap": (*node).dhtBootstrap, "dht_find_peer": (*node).dhtFindPeer,
	"dht_closest": (*node).dhtClosest, "dht_provide": (*node).dhtProvide,
	"dht_find_providers": (*node).dhtFindProviders, "dht_put": (*node).dhtPut,
	"dht_get": (*node).dhtGet, "dht_table": (*node).dhtTable, "dht_mode": (*node).dhtMode,
}

// hexBytes are bytes that stand in JSON as hexadecimal digits.
type hexBytes []byte

func (b *hexBytes) UnmarshalJSON(data []byte) error {
	var text string
	err := json.Unmarshal(data, &text)
	if err == nil {
		*b, err = hex.DecodeString(text)
	}
	return err
}

// largest is the validator of the namespace "example": all values are valid, the largest is best.
type largest struct{}

func (largest) Validate(string, []byte) error { return nil }

func (largest) Select(_ string, values [][]byte) (int, error) {
	best := 0
	for i, value := range values {
		if bytes.Compare(value, values[best]) > 0 {
			best = i
		}
	}
	return best, nil
}

// startDHT joins the network of that protocol as "server" or "client"; "off" does nothing.
func (n *node) startDHT(mode, protocolID string) (err error) {
	modes := map[string]dht.ModeOpt{"server": dht.ModeServer, "client": dht.ModeClient}
	option, ok := modes[mode]
	if mode == "off" {
		return nil
	}
	if !ok {
		return fmt.Errorf("unknown mode %s of --dht", mode)
	}
	n.dhtProtocol = protocol.ID(protocolID)
	n.dht, err = dht.New(n.Host,
		dht.Mode(option),
		// Networks with the prefix /ipfs may have no namespaces besides pk and ipns.
		dht.ProtocolPrefix("/conformance"),
		dht.V1ProtocolOverride(n.dhtProtocol),
		dht.NamespacedValidator("example", largest{}),
	)
	return err
}

// content is the key that provider commands are about.
func (c *command) content() (cid.Cid, error) {
	if c.CID != "" {
		return cid.Decode(c.CID)
	}
	hash, err := multihash.Cast(c.Multihash)
	return cid.NewCidV1(cid.Raw, hash), err
}

func (n *node) dhtBootstrap(ctx context.Context, c *command) (fields, error) {
	err := errors.New("the argument addresses is empty")
	var infos []peer.AddrInfo
	for _, address := range c.Addresses {
		info, wrong := peer.AddrInfoFromString(address)
		if wrong != nil {
			return nil, wrong
		}
		if failed := n.Connect(ctx, *info); failed != nil {
			err = failed
			continue
		}
		infos = append(infos, *info)
	}
	if len(infos) == 0 {
		return nil, err
	}
	table := n.dht.RoutingTable()
	inTable := func() bool {
		return slices.ContainsFunc(infos, func(info peer.AddrInfo) bool {
			return table.Find(info.ID) != ""
		})
	}
	for start := time.Now(); !inTable(); time.Sleep(5 * time.Millisecond) {
		if time.Since(start) > bootstrapPatience || ctx.Err() != nil {
			return nil, errors.New("none of these peers came into the table")
		}
	}
	select {
	case err = <-n.dht.RefreshRoutingTable():
	case <-ctx.Done():
		err = ctx.Err()
	}
	return fields{"size": table.Size()}, err
}

func (n *node) dhtFindPeer(ctx context.Context, c *command) (fields, error) {
	info, err := n.dht.FindPeer(ctx, c.Peer)
	return fields{"addresses": info.Addrs}, err
}

func (n *node) dhtClosest(ctx context.Context, c *command) (fields, error) {
	peers, err := n.dht.GetClosestPeers(ctx, string(c.Key))
	return fields{"peers": peers}, err
}

func (n *node) dhtProvide(ctx context.Context, c *command) (fields, error) {
	content, err := c.content()
	if err == nil {
		err = n.dht.Provide(ctx, content, true)
	}
	return nil, err
}

func (n *node) dhtFindProviders(ctx context.Context, c *command) (fields, error) {
	content, err := c.content()
	if err != nil {
		return nil, err
	}
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(c.Timeout*float64(time.Second)))
		defer cancel()
	}
	peers := []peer.ID{}
	for info := range n.dht.FindProvidersAsync(ctx, content, c.Count) {
		peers = append(peers, info.ID)
	}
	return fields{"peers": peers, "seconds": time.Since(c.start).Seconds()}, nil
}

func (n *node) dhtPut(ctx context.Context, c *command) (fields, error) {
	return nil, n.dht.PutValue(ctx, string(c.Key), c.Value)
}

func (n *node) dhtGet(ctx context.Context, c *command) (fields, error) {
	value, err := n.dht.GetValue(ctx, string(c.Key))
	return fields{"value": hex.EncodeToString(value)}, err
}

func (n *node) dhtTable(context.Context, *command) (fields, error) {
	return fields{"peers": append([]peer.ID{}, n.dht.RoutingTable().ListPeers()...)}, nil
}

// dhtMode tells what the host answers to, which is not what was asked for if it went wrong.
func (n *node) dhtMode(context.Context, *command) (fields, error) {
	if slices.Contains(n.Mux().Protocols(), n.dhtProtocol) {
		return fields{"mode": "server"}, nil
	}
	return fields{"mode": "client"}, nil
}
