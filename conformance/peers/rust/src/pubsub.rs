//! Pubsub: the router of this node, and the commands whose names begin with pubsub_.

use std::collections::HashMap;
use std::time::Duration;

use libp2p::gossipsub::{
    Behaviour, ConfigBuilder, Event, IdentTopic, Message, MessageAuthenticity, MessageId,
    PeerScoreParams, PeerScoreThresholds, PublishError, TopicScoreParams, ValidationMode,
};
use libp2p::identity::Keypair;
use libp2p::swarm::SwarmEvent;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::commands::{from_hex, number, pattern, peer};
use crate::node::{Fault, Handle, ProtocolsEvent};
use crate::serve::hex;

type Result<T> = std::result::Result<T, Fault>;

const MAX_RPC: usize = 4 << 20;
/// How long a message may wait for a slow peer, of 5 s and 1 s by default: machines are busy.
const QUEUED: Duration = Duration::from_secs(30);
const HEARTBEAT_DELAY: Duration = Duration::from_millis(100);
const MOST_PRUNED: usize = 16;

/// What came, by topic.
pub type Inboxes = HashMap<String, Vec<Received>>;

#[derive(PartialEq)]
pub struct Received {
    from: Option<String>,
    size: usize,
    sha256: String,
    count: usize,
}

/// `policy`: sign, unsigned or nosign.
pub fn behaviour(key: &Keypair, policy: &str, scored: bool) -> Result<Behaviour> {
    let mut config = ConfigBuilder::default();
    config
        .max_transmit_size(MAX_RPC)
        .publish_queue_duration(QUEUED)
        .forward_queue_duration(QUEUED)
        .heartbeat_initial_delay(HEARTBEAT_DELAY)
        .do_px()
        .prune_peers(MOST_PRUNED);
    let author = match policy {
        "sign" => {
            config.validation_mode(ValidationMode::Strict).message_id_fn(author_and_number);
            MessageAuthenticity::Signed(key.clone())
        }
        "unsigned" => {
            config.validation_mode(ValidationMode::Permissive).message_id_fn(author_and_number);
            MessageAuthenticity::Author(key.public().to_peer_id())
        }
        "nosign" => {
            config.validation_mode(ValidationMode::Anonymous).message_id_fn(hash);
            MessageAuthenticity::Anonymous
        }
        _ => Err(format!("cannot do --pubsub-policy {policy}"))?,
    };
    let mut router = Behaviour::new(author, config.build()?)?;
    let params = PeerScoreParams {
        topic_score_cap: 0.0,
        app_specific_weight: 0.0,
        ip_colocation_factor_weight: 0.0,
        behaviour_penalty_weight: -10.0,
        behaviour_penalty_threshold: 2.0,
        behaviour_penalty_decay: 0.9,
        decay_to_zero: 0.01,
        slow_peer_weight: 0.0,
        ..Default::default()
    };
    let thresholds = PeerScoreThresholds {
        gossip_threshold: -10.0,
        publish_threshold: -50.0,
        graylist_threshold: -80.0,
        accept_px_threshold: 0.0,
        opportunistic_graft_threshold: 0.0,
    };
    if scored {
        router.with_peer_score(params, thresholds)?;
    }
    Ok(router)
}

fn topic_score() -> TopicScoreParams {
    TopicScoreParams {
        topic_weight: 1.0,
        time_in_mesh_weight: 0.0,
        first_message_deliveries_weight: 0.0,
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        invalid_message_deliveries_weight: -10.0,
        invalid_message_deliveries_decay: 0.9,
        ..Default::default()
    }
}

fn author_and_number(message: &Message) -> MessageId {
    let mut id = message.source.map(|peer| peer.to_bytes()).unwrap_or_default();
    id.extend(message.sequence_number.unwrap_or_default().to_be_bytes());
    id.into()
}

fn hash(message: &Message) -> MessageId {
    Sha256::digest(&message.data).to_vec().into()
}

/// Keep what comes in topics that were subscribed to.
pub fn on_event(inboxes: &mut Inboxes, event: &SwarmEvent<ProtocolsEvent>) {
    let SwarmEvent::Behaviour(ProtocolsEvent::Pubsub(Event::Message { message, .. })) = event
    else {
        return;
    };
    let Some(inbox) = inboxes.get_mut(message.topic.as_str()) else { return };
    let from = message.source.map(|peer| peer.to_string());
    let sha256 = hex(Sha256::digest(&message.data));
    match inbox.iter_mut().find(|known| known.sha256 == sha256 && known.from == from) {
        Some(known) => known.count += 1,
        None => inbox.push(Received { from, size: message.data.len(), sha256, count: 1 }),
    }
}

/// Carry out a command whose name begins with pubsub_.
pub async fn perform(node: &Handle, name: &str, command: &Value) -> Result<Value> {
    if name == "pubsub_score" {
        let peer = peer(command)?;
        let score = node.pubsub(move |router, _| Ok(router.peer_score(&peer))).await?;
        return Ok(json!({"score": score.unwrap_or_default()}));
    }
    let text = command["topic"].as_str().ok_or("the argument topic is missing")?.to_owned();
    let topic = IdentTopic::new(&text);
    match name {
        "pubsub_subscribe" => {
            node.pubsub(move |router, inboxes| {
                // An error says that there is no scoring.
                let _ = router.set_topic_params(topic.clone(), topic_score());
                inboxes.insert(text, Vec::new());
                router.subscribe(&topic)?;
                Ok(json!({}))
            })
            .await
        }
        "pubsub_unsubscribe" => {
            node.pubsub(move |router, _| {
                router.unsubscribe(&topic);
                Ok(json!({}))
            })
            .await
        }
        "pubsub_publish" => {
            let data = data(command)?;
            let answer = json!({"sha256": hex(Sha256::digest(&data))});
            node.pubsub(move |router, _| match router.publish(topic, data) {
                Ok(_) | Err(PublishError::NoPeersSubscribedToTopic) => Ok(answer),
                Err(error) => Err(error.into()),
            })
            .await
        }
        "pubsub_received" => {
            node.pubsub(move |_, inboxes| {
                let inbox = inboxes.get(&text).ok_or("not subscribed to that topic")?;
                let messages = inbox.iter().map(|one| {
                    json!({
                        "from": one.from, "size": one.size, "sha256": one.sha256,
                        "count": one.count,
                    })
                });
                Ok(json!({"messages": messages.collect::<Vec<_>>()}))
            })
            .await
        }
        "pubsub_peers" => {
            node.pubsub(move |router, _| {
                let hash = topic.hash();
                let peers = router.all_peers().filter(|(_, topics)| topics.contains(&&hash));
                Ok(json!({"peers": peers.map(|(peer, _)| peer.to_string()).collect::<Vec<_>>()}))
            })
            .await
        }
        "pubsub_mesh" => {
            node.pubsub(move |router, _| {
                let hash = topic.hash();
                let peers = router.mesh_peers(&hash).map(|peer| peer.to_string());
                Ok(json!({"peers": peers.collect::<Vec<_>>()}))
            })
            .await
        }
        _ => Err(format!("unknown command {name}").into()),
    }
}

/// What a command wants to have published.
fn data(command: &Value) -> Result<Vec<u8>> {
    if let Some(seed) = command["seed"].as_str() {
        let size = number(command, "size", None)? as usize;
        let mut data = seed.as_bytes().to_vec();
        data.extend(pattern(0, size.saturating_sub(seed.len())));
        return Ok(data);
    }
    let text = command["data"].as_str().ok_or("the argument data is missing")?;
    from_hex(text).ok_or_else(|| "the argument data is not hexadecimal".into())
}
