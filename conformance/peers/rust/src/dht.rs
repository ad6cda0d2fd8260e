//! Kademlia: what the node does by itself, and the commands whose names begin with dht_.
//!
//! command --start a query--> Behaviour --results of the query, one by one--> command

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use cid::Cid;
use futures::channel::mpsc;
use futures::prelude::*;
use libp2p::identify;
use libp2p::kad::store::{MemoryStore, RecordStore};
use libp2p::kad::{
    Behaviour, Config, Event, GetClosestPeersOk, GetProvidersOk, GetRecordOk, InboundRequest, Mode,
    PeerInfo, QueryId, QueryResult, Quorum, Record, RecordKey, StoreInserts,
};
use libp2p::swarm::{StreamProtocol, SwarmEvent};
use libp2p::{Multiaddr, PeerId};
use serde_json::{Value, json};

use crate::commands::{self, dial, number, peer};
use crate::node::{Fault, Handle, ProtocolsEvent};
use crate::records::{is_better, validate};
use crate::serve::hex;

type Result<T> = std::result::Result<T, Fault>;
pub type Dht = Behaviour<MemoryStore>;
/// Where the results of queries go that a command waits for.
pub type Queries = HashMap<QueryId, mpsc::UnboundedSender<QueryResult>>;

/// How long dht_bootstrap waits until a peer is in the table.
const BOOTSTRAP_PATIENCE: Duration = Duration::from_secs(10);

pub fn behaviour(id: PeerId, mode: Mode, protocol: StreamProtocol) -> Dht {
    let mut config = Config::new(protocol);
    config.set_record_filtering(StoreInserts::FilterBoth); // see on_request
    let mut dht = Dht::with_config(id, MemoryStore::new(id), config);
    dht.set_mode(Some(mode));
    dht
}

/// Do what Kademlia leaves to its users: fill the table, judge records, hand out results.
pub fn on_event(dht: &mut Dht, queries: &mut Queries, event: &SwarmEvent<ProtocolsEvent>) {
    match event {
        SwarmEvent::Behaviour(ProtocolsEvent::Identify(identify::Event::Received {
            peer_id,
            info,
            ..
        })) => {
            if dht.protocol_names().iter().any(|name| info.protocols.contains(name)) {
                for address in &info.listen_addrs {
                    dht.add_address(peer_id, address.clone());
                }
            } else {
                dht.remove_peer(peer_id);
            }
        }
        SwarmEvent::Behaviour(ProtocolsEvent::Dht(Event::InboundRequest { request })) => {
            on_request(dht, request);
        }
        SwarmEvent::Behaviour(ProtocolsEvent::Dht(Event::OutboundQueryProgressed {
            id,
            result,
            step,
            ..
        })) => {
            if let Some(waiting) = queries.get(id) {
                let _ = waiting.unbounded_send(result.clone());
            }
            if step.last {
                queries.remove(id);
            }
        }
        _ => {}
    }
}

/// Store what others send if it is valid. They are told that it was stored in any case.
fn on_request(dht: &mut Dht, request: &InboundRequest) {
    let store = dht.store_mut();
    let stored = match request {
        InboundRequest::AddProvider { record: Some(record) } => store.add_provider(record.clone()),
        InboundRequest::PutRecord { record: Some(record), .. } => match check(store, record) {
            Ok(()) => store.put(record.clone()),
            Err(error) => return eprintln!("PUT_VALUE: {error}"),
        },
        _ => Ok(()),
    };
    if let Err(error) = stored {
        eprintln!("{request:?}: {error}");
    }
}

fn check(store: &MemoryStore, record: &Record) -> Result<()> {
    validate(record.key.as_ref(), &record.value)?;
    match store.get(&record.key) {
        Some(held) if is_better(record.key.as_ref(), &held.value, &record.value) => {
            Err("a better value is stored here".into())
        }
        _ => Ok(()),
    }
}

/// Carry out a command whose name begins with dht_.
pub async fn perform(node: &Handle, name: &str, command: &Value) -> Result<Value> {
    match name {
        "dht_bootstrap" => bootstrap(node, command).await,
        "dht_find_peer" => find_peer(node, peer(command)?).await,
        "dht_closest" => {
            let key = bytes(command, "key")?;
            let found = closest(node, key).await?;
            let peers = found.iter().map(|info| info.peer_id.to_string());
            Ok(json!({"peers": peers.collect::<Vec<_>>()}))
        }
        "dht_provide" => {
            let key = content(command)?;
            let results = query(node, move |dht| Ok(dht.start_providing(key)?)).await?;
            match results.collect::<Vec<_>>().await.pop() {
                Some(QueryResult::StartProviding(result)) => result?,
                _ => Err("the query ended without a result")?,
            };
            Ok(json!({}))
        }
        "dht_find_providers" => find_providers(node, command).await,
        "dht_put" => put(node, bytes(command, "key")?, bytes(command, "value")?).await,
        "dht_get" => get(node, bytes(command, "key")?).await,
        "dht_table" => {
            let peers = table(node).await?;
            let peers = peers.iter().map(PeerId::to_string);
            Ok(json!({"peers": peers.collect::<Vec<_>>()}))
        }
        "dht_mode" => {
            let mode = node.dht(|dht, _| Ok(dht.mode())).await?;
            Ok(json!({"mode": mode.to_string()}))
        }
        _ => Err(format!("unknown command {name}").into()),
    }
}

async fn table(node: &Handle) -> Result<Vec<PeerId>> {
    let peers = |dht: &mut Dht, _: &mut Queries| {
        let entries = dht.kbuckets().flat_map(|bucket| {
            bucket.iter().map(|entry| *entry.node.key.preimage()).collect::<Vec<_>>()
        });
        Ok(entries.collect())
    };
    node.dht(peers).await
}

async fn query(
    node: &Handle, start: impl FnOnce(&mut Dht) -> Result<QueryId> + Send + 'static,
) -> Result<mpsc::UnboundedReceiver<QueryResult>> {
    node.dht(move |dht, queries| {
        let (results, receiver) = mpsc::unbounded();
        queries.insert(start(dht)?, results);
        Ok(receiver)
    })
    .await
}

async fn bootstrap(node: &Handle, command: &Value) -> Result<Value> {
    let addresses = command["addresses"].as_array().ok_or("the argument addresses is missing")?;
    let mut result = Err("the argument addresses is empty".into());
    let mut dialed = Vec::new();
    for address in addresses {
        let address: Multiaddr = address.as_str().ok_or("an address is not a text")?.parse()?;
        match dial(node, address).await {
            Ok(answer) => dialed.push(peer(&answer)?),
            Err(error) => result = Err(error),
        }
    }
    if dialed.is_empty() {
        return result;
    }
    let start = Instant::now();
    while !table(node).await?.iter().any(|peer| dialed.contains(peer)) {
        if start.elapsed() > BOOTSTRAP_PATIENCE {
            Err("none of these peers came into the table")?;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let results = query(node, |dht| Ok(dht.bootstrap()?)).await?;
    for result in results.collect::<Vec<_>>().await {
        if let QueryResult::Bootstrap(step) = result {
            step?;
        }
    }
    Ok(json!({"size": table(node).await?.len()}))
}

async fn closest(node: &Handle, key: Vec<u8>) -> Result<Vec<PeerInfo>> {
    let results = query(node, |dht| Ok(dht.get_closest_peers(key))).await?;
    match results.collect::<Vec<_>>().await.pop() {
        Some(QueryResult::GetClosestPeers(Ok(GetClosestPeersOk { peers, .. }))) => Ok(peers),
        Some(QueryResult::GetClosestPeers(Err(error))) => Err(error.into()),
        _ => Err("the query ended without a result".into()),
    }
}

/// The library has no such operation, but a lookup connects to whom it hears of.
async fn find_peer(node: &Handle, peer: PeerId) -> Result<Value> {
    let found = closest(node, peer.to_bytes()).await?;
    let found = found.into_iter().find(|info| info.peer_id == peer);
    let addresses = match found {
        Some(info) => info.addrs,
        None if node.connections().await?.contains_key(&peer) => {
            node.identify(peer).await?.listen_addrs
        }
        None => Err("the peer was not found")?,
    };
    Ok(json!({"addresses": addresses}))
}

async fn find_providers(node: &Handle, command: &Value) -> Result<Value> {
    let (key, count) = (content(command)?, number(command, "count", Some(1))?);
    let patience = command["timeout"].as_f64().unwrap_or(60.0);
    let start = Instant::now();
    let mut results = query(node, |dht| Ok(dht.get_providers(key))).await?;
    let mut found = BTreeSet::new();
    let search = async {
        while let Some(result) = results.next().await {
            match result {
                QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders {
                    providers, ..
                })) => found.extend(providers),
                QueryResult::GetProviders(Err(error)) => return Err(error.into()),
                _ => {}
            }
            if count > 0 && found.len() as u64 >= count {
                break;
            }
        }
        Result::Ok(())
    };
    if let Ok(result) = tokio::time::timeout(Duration::from_secs_f64(patience), search).await {
        result?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let peers = found.iter().map(PeerId::to_string).collect::<Vec<_>>();
    Ok(json!({"peers": peers, "seconds": seconds}))
}

async fn put(node: &Handle, key: Vec<u8>, value: Vec<u8>) -> Result<Value> {
    let record = Record::new(key, value);
    let results = query(node, |dht| {
        check(dht.store_mut(), &record)?;
        Ok(dht.put_record(record, Quorum::One)?)
    });
    match results.await?.collect::<Vec<_>>().await.pop() {
        Some(QueryResult::PutRecord(result)) => drop(result?),
        _ => Err("the query ended without a result")?,
    }
    Ok(json!({}))
}

async fn get(node: &Handle, key: Vec<u8>) -> Result<Value> {
    let wanted = RecordKey::new(&key);
    let mut results = query(node, |dht| Ok(dht.get_record(wanted))).await?;
    let mut best: Option<Vec<u8>> = None;
    while let Some(result) = results.next().await {
        if let QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(found))) = result {
            let value = found.record.value;
            let valid = found.record.key.as_ref() == key && validate(&key, &value).is_ok();
            if valid && best.as_ref().is_none_or(|best| is_better(&key, &value, best)) {
                best = Some(value);
            }
        }
    }
    let value = best.ok_or("no valid record was found")?;
    Ok(json!({"value": hex(value)}))
}

/// The multihash that a provider command is about.
fn content(command: &Value) -> Result<RecordKey> {
    let multihash = match command["cid"].as_str() {
        Some(cid) => cid.parse::<Cid>()?.hash().to_bytes(),
        None => bytes(command, "multihash")?,
    };
    Ok(RecordKey::from(multihash))
}

fn bytes(command: &Value, name: &str) -> Result<Vec<u8>> {
    let text = command[name].as_str().ok_or_else(|| format!("the argument {name} is missing"))?;
    commands::from_hex(text).ok_or_else(|| format!("the argument {name} is not hexadecimal").into())
}
