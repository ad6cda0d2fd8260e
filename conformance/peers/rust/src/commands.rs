//! The commands: what this peer does to another one when it is told to.

use std::io;
use std::time::{Duration, Instant};

use futures::channel::oneshot;
use futures::future::{join, join_all, try_join_all};
use futures::prelude::*;
use libp2p::core::{PeerRecord, SignedEnvelope};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{ConnectionId, Stream, StreamProtocol};
use libp2p::{Multiaddr, PeerId};
use prost::Message;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::dht;
use crate::node::{Fault, Handle};
use crate::pubsub;
use crate::serve::{
    AFTER_EOF, CHUNK, ECHO, PERF, PING, RESET_ME, WATCH_RESET, drain, hex, was_reset, write_zeros,
};

type Result<T> = std::result::Result<T, Fault>;

const IDENTIFY: &str = "/ipfs/id/1.0.0";
const RESET_TIMEOUT: Duration = Duration::from_secs(10);

/// Carry out one command; the answer is an object without id and ok.
pub async fn perform(node: &Handle, command: &Value) -> Result<Value> {
    let name = command["cmd"].as_str().unwrap_or_default();
    match name {
        "dial" => dial(node, address(command)?).await,
        "disconnect" => disconnect(node, peer(command)?).await,
        "connections" => {
            let peers = node.connections().await?.into_keys().map(|peer| peer.to_string());
            let channels = node.channels().await?;
            Ok(json!({"peers": peers.collect::<Vec<_>>(), "channels": channels}))
        }
        "ping" => ping(node, peer(command)?, number(command, "count", Some(1))?).await,
        "identify" => identify(node, peer(command)?).await,
        "echo" => {
            let stream = open(node, command, ECHO).await?;
            let late = command["late"].as_bool().unwrap_or(false);
            echo(stream, number(command, "size", None)?, late).await
        }
        "perf" => {
            let upload = number(command, "upload", None)?;
            perf(open(node, command, PERF).await?, upload, number(command, "download", None)?).await
        }
        "half_close" => half_close(open(node, command, AFTER_EOF).await?).await,
        "reset_by_them" => reset_by_them(open(node, command, RESET_ME).await?).await,
        "reset_by_us" => reset_by_us(open(node, command, WATCH_RESET).await?).await,
        "many" => {
            let count = number(command, "count", None)?;
            many(node, command, count, number(command, "size", Some(1024))?).await
        }
        "streams" => streams(node, command, number(command, "count", None)?).await,
        "connects" => connects(node, address(command)?, number(command, "count", None)?).await,
        "cpu" => Ok(json!({"seconds": cpu_seconds(), "rss": resident_bytes()})),
        "open_stream" => open_stream(node, command).await,
        "stop" => Ok(json!({})),
        name if name.starts_with("dht_") => dht::perform(node, name, command).await,
        name if name.starts_with("pubsub_") => pubsub::perform(node, name, command).await,
        _ => Err(format!("unknown command {name}").into()),
    }
}

pub fn peer(command: &Value) -> Result<PeerId> {
    Ok(command["peer"].as_str().ok_or("the argument peer is missing")?.parse()?)
}

fn address(command: &Value) -> Result<Multiaddr> {
    Ok(command["address"].as_str().ok_or("the argument address is missing")?.parse()?)
}

pub fn number(command: &Value, name: &str, default: Option<u64>) -> Result<u64> {
    match (&command[name], default) {
        (Value::Null, Some(default)) => Ok(default),
        (value, _) => {
            value.as_u64().ok_or_else(|| format!("the argument {name} is not a number").into())
        }
    }
}

pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.is_ascii() && text.len().is_multiple_of(2);
    let pairs = (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok());
    pairs.take_while(|_| digits).collect::<Option<Vec<_>>>().filter(|_| digits)
}

async fn open(node: &Handle, command: &Value, protocol: &'static str) -> Result<Stream> {
    Ok(node.open(peer(command)?, None, vec![StreamProtocol::new(protocol)]).await?.0)
}

pub async fn dial(node: &Handle, to: Multiaddr) -> Result<Value> {
    let known = node.connections().await?;
    let peer = match to.iter().last() {
        Some(Protocol::P2p(peer)) if known.contains_key(&peer) => peer,
        _ => {
            let (peer, id) = node.dial(to).await?;
            confirm(node, peer, id).await?;
            peer
        }
    };
    Ok(json!({"peer": peer.to_string()}))
}

/// Wait until a new connection can really be used: until a first stream is negotiated.
async fn confirm(node: &Handle, peer: PeerId, id: ConnectionId) -> Result<()> {
    let opened = node.open(peer, Some(id), vec![StreamProtocol::new(PING)]).await;
    let (mut stream, _) = opened.map_err(|error| format!("the new connection failed: {error}"))?;
    Ok(stream.close().await?)
}

async fn disconnect(node: &Handle, peer: PeerId) -> Result<Value> {
    let ids = node.connections().await?.remove(&peer).unwrap_or_default();
    try_join_all(ids.into_iter().map(|id| node.close(id))).await?;
    Ok(json!({}))
}

async fn ping(node: &Handle, peer: PeerId, count: u64) -> Result<Value> {
    let (mut stream, _) = node.open(peer, None, vec![StreamProtocol::new(PING)]).await?;
    let mut rtts = Vec::new();
    for _ in 0..count {
        let sent: [u8; 32] = rand::random();
        let mut received = [0; 32];
        let start = Instant::now();
        stream.write_all(&sent).await?;
        stream.flush().await?;
        stream.read_exact(&mut received).await?;
        rtts.push(start.elapsed().as_secs_f64());
        if received != sent {
            Err("the answer to a ping has other bytes")?;
        }
    }
    stream.close().await?;
    Ok(json!({"rtts": rtts}))
}

async fn identify(node: &Handle, peer: PeerId) -> Result<Value> {
    let info = node.identify(peer).await?;
    let record = signed_record(node, peer).await.ok();
    let protocols = info.protocols.iter().map(|protocol| protocol.to_string());
    let addresses = info.listen_addrs.iter().map(|address| address.to_string());
    Ok(json!({
        "peer": info.public_key.to_peer_id().to_string(),
        "agent": info.agent_version,
        "protocol_version": info.protocol_version,
        "protocols": protocols.collect::<Vec<_>>(),
        "addresses": addresses.collect::<Vec<_>>(),
        "observed": (!info.observed_addr.is_empty()).then(|| info.observed_addr.to_string()),
        "signed_record": record.map(|format| format.is_some()),
        "record_format": record.flatten(),
        "key_type": format!("{:?}", info.public_key.key_type()).to_lowercase(),
    }))
}

/// The one field of an identify message that libp2p's identify does not hand out.
#[derive(prost::Message)]
struct Identify {
    #[prost(bytes, optional, tag = "8")]
    signed_peer_record: Option<Vec<u8>>,
}

/// The format of the valid signed peer record in the peer's identify message, if there is one.
///
/// Asks again by hand: libp2p's identify accepts records of the older rust format only.
async fn signed_record(node: &Handle, peer: PeerId) -> Result<Option<&'static str>> {
    let (mut stream, _) = node.open(peer, None, vec![StreamProtocol::new(IDENTIFY)]).await?;
    let mut data = Vec::new();
    (&mut stream).take(CHUNK as u64).read_to_end(&mut data).await?;
    let (mut message, mut rest) = (Identify::default(), &data[..]);
    while !rest.is_empty() {
        message.merge_length_delimited(&mut rest)?; // a long message comes in parts
    }
    Ok(message.signed_peer_record.and_then(|record| {
        let envelope = SignedEnvelope::from_protobuf_encoding(&record).ok()?;
        let (record, format) = match PeerRecord::from_signed_envelope_interop(envelope.clone()) {
            Ok(record) => (record, "standard"),
            Err(_) => (PeerRecord::from_signed_envelope(envelope).ok()?, "older rust"),
        };
        (record.peer_id() == peer).then_some(format)
    }))
}

/// Bytes `from`, `from + 1`, ... of what every echo sends.
pub fn pattern(from: u64, size: usize) -> Vec<u8> {
    (from..).take(size).map(|i| ((i * 7 + i / 256) % 251) as u8).collect()
}

/// `late`: half-close only when everything came back.
async fn echo(stream: Stream, size: u64, late: bool) -> Result<Value> {
    let start = Instant::now();
    let (mut reader, mut writer) = stream.split();
    let (complete, completed) = oneshot::channel::<()>();
    let send = async {
        let mut sent = 0;
        while sent < size {
            let chunk = pattern(sent, (size - sent).min(CHUNK as u64) as usize);
            writer.write_all(&chunk).await?;
            sent += chunk.len() as u64;
        }
        writer.flush().await?;
        if late && size > 0 {
            let _ = completed.await;
        }
        writer.close().await
    };
    let receive = async {
        let mut digest = Sha256::new();
        let (mut received, mut equal, mut complete) = (0, true, Some(complete));
        let total = drain(&mut reader, |data| {
            equal &= data == pattern(received, data.len());
            digest.update(data);
            received += data.len() as u64;
            if received >= size {
                complete.take();
            }
        });
        total.await?;
        io::Result::Ok((received, equal && received == size, hex(digest.finalize())))
    };
    let (sent, received) = join(send, receive).await;
    sent?;
    let (received, equal, digest) = received?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(json!({
        "sent": size, "received": received, "sha256": digest, "equal": equal, "seconds": seconds,
    }))
}

async fn perf(mut stream: Stream, upload: u64, download: u64) -> Result<Value> {
    let start = Instant::now();
    stream.write_all(&download.to_be_bytes()).await?;
    write_zeros(&mut stream, upload).await?;
    let begun = stream.read(&mut [0]).await? as u64; // the first byte, or EOF
    let uploaded = start.elapsed();
    let received = begun + drain(&mut stream, |_| ()).await?;
    Ok(json!({
        "upload_seconds": uploaded.as_secs_f64(),
        "download_seconds": (start.elapsed() - uploaded).as_secs_f64(),
        "received": received,
    }))
}

async fn half_close(mut stream: Stream) -> Result<Value> {
    let data = pattern(0, 100_000);
    stream.write_all(&data).await?;
    stream.close().await?;
    let mut answer = Vec::new();
    drain(&mut stream, |data| answer.extend_from_slice(data)).await?;
    Ok(json!({"equal": answer == hex(Sha256::digest(&data)).into_bytes()}))
}

async fn reset_by_them(mut stream: Stream) -> Result<Value> {
    stream.write_all(b"x").await?;
    stream.flush().await?;
    let end = tokio::time::timeout(RESET_TIMEOUT, drain(&mut stream, |_| ())).await;
    let reset = match end {
        Ok(Ok(_)) => was_reset(&mut stream).await,
        Ok(Err(_)) => true,
        Err(_) => false,
    };
    Ok(json!({"reset": reset, "code": null}))
}

async fn reset_by_us(mut stream: Stream) -> Result<Value> {
    stream.write_all(b"x").await?;
    stream.flush().await?;
    stream.read_exact(&mut [0]).await?;
    drop(stream); // dropping an open stream resets it
    Ok(json!({}))
}

async fn many(node: &Handle, command: &Value, count: u64, size: u64) -> Result<Value> {
    let opening = (0..count).map(|_| open(node, command, ECHO));
    let streams = try_join_all(opening).await?;
    let echoes = streams.into_iter().map(|stream| echo(stream, size, false));
    let done = join_all(echoes).await.iter().filter(|answer| is_equal(answer)).count();
    Ok(json!({"done": done}))
}

fn is_equal(answer: &Result<Value>) -> bool {
    answer.as_ref().is_ok_and(|answer| answer["equal"] == true)
}

async fn streams(node: &Handle, command: &Value, count: u64) -> Result<Value> {
    let start = Instant::now();
    for _ in 0..count {
        if !is_equal(&echo(open(node, command, ECHO).await?, 32, false).await) {
            Err("an echo did not come back equal")?;
        }
    }
    Ok(json!({"seconds": start.elapsed().as_secs_f64()}))
}

async fn connects(node: &Handle, to: Multiaddr, count: u64) -> Result<Value> {
    let (mut established, mut usable) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..count {
        let start = Instant::now();
        let (peer, id) = node.dial(to.clone()).await?;
        established += start.elapsed();
        confirm(node, peer, id).await?;
        usable += start.elapsed();
        node.close(id).await?;
    }
    Ok(json!({
        "seconds": usable.as_secs_f64(), "established_seconds": established.as_secs_f64(),
    }))
}

async fn open_stream(node: &Handle, command: &Value) -> Result<Value> {
    let names = command["protocols"].as_array().ok_or("the argument protocols is missing")?;
    let mut protocols = Vec::new();
    for name in names {
        let name = name.as_str().ok_or("a protocol is not a text")?;
        protocols.push(StreamProtocol::try_from_owned(name.to_owned())?);
    }
    let (mut stream, protocol) = node.open(peer(command)?, None, protocols).await?;
    stream.close().await?;
    Ok(json!({"protocol": protocol.to_string()}))
}

fn cpu_seconds() -> f64 {
    // SAFETY: getrusage only fills the structure, for which all zeros is a valid value.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}
