package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	maxRPC = 4 << 20
	queued = 2048 // messages, of a peer or a subscription
)

var pubsubCommands = map[string]handler{
	"pubsub_subscribe": (*node).pubsubSubscribe, "pubsub_unsubscribe": (*node).pubsubUnsubscribe,
	"pubsub_publish": (*node).pubsubPublish, "pubsub_received": (*node).pubsubReceived,
	"pubsub_peers": (*node).pubsubPeers, "pubsub_mesh": (*node).pubsubMesh,
	"pubsub_score": (*node).pubsubScore,
}

// broadcast is this node's part in pubsub. It is the library's tracer, which tells of the mesh.
type broadcast struct {
	*pubsub.PubSub
	scored bool

	mu       sync.Mutex
	topics   map[string]*pubsub.Topic
	received map[string]*inbox
	mesh     map[string]map[peer.ID]bool
	scores   map[peer.ID]float64
}

// inbox is what came in one topic.
type inbox struct {
	*pubsub.Subscription
	order []*received
	known map[[2]string]*received
}

type received struct {
	From   *peer.ID `json:"from"`
	Size   int      `json:"size"`
	SHA256 string   `json:"sha256"`
	Count  int      `json:"count"`
}

// startPubSub makes the router; "off" does nothing.
func (n *node) startPubSub(router, policy string, scored bool) (err error) {
	if router == "off" {
		return nil
	}
	b := &broadcast{
		scored: scored && router == "gossipsub",
		topics: map[string]*pubsub.Topic{}, received: map[string]*inbox{},
		mesh: map[string]map[peer.ID]bool{}, scores: map[peer.ID]float64{},
	}
	options := []pubsub.Option{
		pubsub.WithMaxMessageSize(maxRPC),
		pubsub.WithPeerOutboundQueueSize(queued),
		pubsub.WithValidateQueueSize(queued),
		pubsub.WithEventTracer(b),
	}
	switch policy {
	case "sign":
	case "unsigned":
		options = append(options, pubsub.WithMessageSignaturePolicy(pubsub.LaxNoSign))
	case "nosign":
		options = append(options,
			pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign),
			pubsub.WithNoAuthor(),
			pubsub.WithMessageIdFn(func(m *pb.Message) string {
				id := sha256.Sum256(m.Data)
				return string(id[:])
			}))
	default:
		return fmt.Errorf("unknown --pubsub-policy %s", policy)
	}
	switch router {
	case "floodsub":
		b.PubSub, err = pubsub.NewFloodSub(context.Background(), n.Host, options...)
	case "gossipsub":
		options = append(options, pubsub.WithFloodPublish(true), pubsub.WithPeerExchange(true))
		if b.scored {
			options = append(options, pubsub.WithPeerScore(
				&pubsub.PeerScoreParams{
					SkipAtomicValidation:      true,
					Topics:                    map[string]*pubsub.TopicScoreParams{},
					BehaviourPenaltyWeight:    -10,
					BehaviourPenaltyThreshold: 2,
					BehaviourPenaltyDecay:     0.9,
					DecayInterval:             time.Second,
					DecayToZero:               0.01,
					RetainScore:               time.Hour,
				},
				&pubsub.PeerScoreThresholds{
					GossipThreshold: -10, PublishThreshold: -50, GraylistThreshold: -80,
				}),
				pubsub.WithPeerScoreInspect(b.inspect, 100*time.Millisecond))
		}
		b.PubSub, err = pubsub.NewGossipSub(context.Background(), n.Host, options...)
	default:
		err = fmt.Errorf("unknown router %s of --pubsub", router)
	}
	n.pubsub = b
	return err
}

// Trace is called by the library with all that it does.
func (b *broadcast) Trace(e *pb.TraceEvent) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e.GetType() {
	case pb.TraceEvent_JOIN:
		b.mesh[e.Join.GetTopic()] = map[peer.ID]bool{}
	case pb.TraceEvent_LEAVE:
		delete(b.mesh, e.Leave.GetTopic())
	case pb.TraceEvent_GRAFT:
		if mesh := b.mesh[e.Graft.GetTopic()]; mesh != nil {
			mesh[peer.ID(e.Graft.PeerID)] = true
		}
	case pb.TraceEvent_PRUNE:
		delete(b.mesh[e.Prune.GetTopic()], peer.ID(e.Prune.PeerID))
	case pb.TraceEvent_ON_CLOSED_OUTBOUND_STREAM:
		for _, mesh := range b.mesh {
			delete(mesh, peer.ID(e.OnClosedOutboundStream.PeerID))
		}
	}
}

func (b *broadcast) inspect(scores map[peer.ID]float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.scores = scores
}

// topic joins a topic once.
func (b *broadcast) topic(name string) (*pubsub.Topic, error) {
	b.mu.Lock()
	topic := b.topics[name]
	b.mu.Unlock()
	if topic != nil {
		return topic, nil
	}
	topic, err := b.Join(name)
	if err == nil && b.scored {
		err = topic.SetScoreParams(&pubsub.TopicScoreParams{
			SkipAtomicValidation:           true,
			TopicWeight:                    1,
			TimeInMeshQuantum:              time.Second, // the library divides by it
			InvalidMessageDeliveriesWeight: -10,
			InvalidMessageDeliveriesDecay:  0.9,
		})
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil {
		b.topics[name] = topic
	}
	return topic, err
}

func (n *node) pubsubSubscribe(_ context.Context, c *command) (fields, error) {
	b := n.pubsub
	topic, err := b.topic(c.Topic)
	if err != nil {
		return nil, err
	}
	subscription, err := topic.Subscribe(pubsub.WithBufferSize(queued))
	if err != nil {
		return nil, err
	}
	in := &inbox{Subscription: subscription, known: map[[2]string]*received{}}
	b.mu.Lock()
	b.received[c.Topic] = in
	b.mu.Unlock()
	go func() {
		for {
			m, err := subscription.Next(context.Background())
			if err != nil {
				return
			}
			if m.ReceivedFrom == n.ID() {
				continue
			}
			hash := sha256.Sum256(m.Data)
			r := &received{Size: len(m.Data), SHA256: hex.EncodeToString(hash[:])}
			if from := m.GetFrom(); from != "" {
				r.From = &from
			}
			b.mu.Lock()
			key := [2]string{string(m.From), r.SHA256}
			if in.known[key] == nil {
				in.known[key] = r
				in.order = append(in.order, r)
			}
			in.known[key].Count++
			b.mu.Unlock()
		}
	}()
	return nil, nil
}

func (b *broadcast) inbox(topic string) (*inbox, error) {
	if in := b.received[topic]; in != nil {
		return in, nil
	}
	return nil, errors.New("not subscribed to that topic")
}

func (n *node) pubsubUnsubscribe(_ context.Context, c *command) (fields, error) {
	b := n.pubsub
	b.mu.Lock()
	in, err := b.inbox(c.Topic)
	b.mu.Unlock()
	if err == nil {
		in.Cancel()
	}
	return nil, err
}

func (n *node) pubsubPublish(ctx context.Context, c *command) (fields, error) {
	topic, err := n.pubsub.topic(c.Topic)
	if err != nil {
		return nil, err
	}
	data := []byte(c.Data)
	if c.Seed != "" {
		data = append([]byte(c.Seed), pattern(max(c.Size-len(c.Seed), 0))...)
	}
	hash := sha256.Sum256(data)
	return fields{"sha256": hex.EncodeToString(hash[:])}, topic.Publish(ctx, data)
}

func (n *node) pubsubReceived(_ context.Context, c *command) (fields, error) {
	b := n.pubsub
	b.mu.Lock()
	defer b.mu.Unlock()
	in, err := b.inbox(c.Topic)
	if err != nil {
		return nil, err
	}
	messages := make([]received, 0, len(in.order))
	for _, r := range in.order {
		messages = append(messages, *r)
	}
	return fields{"messages": messages}, nil
}

func (n *node) pubsubPeers(_ context.Context, c *command) (fields, error) {
	return fields{"peers": append([]peer.ID{}, n.pubsub.ListPeers(c.Topic)...)}, nil
}

func (n *node) pubsubMesh(_ context.Context, c *command) (fields, error) {
	b := n.pubsub
	b.mu.Lock()
	defer b.mu.Unlock()
	peers := []peer.ID{}
	for p := range b.mesh[c.Topic] {
		peers = append(peers, p)
	}
	slices.Sort(peers)
	return fields{"peers": peers}, nil
}

func (n *node) pubsubScore(_ context.Context, c *command) (fields, error) {
	b := n.pubsub
	b.mu.Lock()
	defer b.mu.Unlock()
	return fields{"score": b.scores[c.Peer]}, nil
}
