//! A conformance peer on rust-libp2p: JSON lines on stdin and stdout, as PROTOCOL.md describes.

mod channels;
mod commands;
mod dht;
mod node;
mod pubsub;
mod records;
mod serve;
mod streams;

use std::io::BufRead;
use std::process::exit;
use std::time::Duration;

use futures::channel::mpsc;
use libp2p::Multiaddr;
use libp2p::identity::Keypair;
use libp2p::kad::{Mode, PROTOCOL_NAME};
use libp2p::swarm::StreamProtocol;
use rsa::pkcs8::EncodePrivateKey;
use serde_json::{Value, json};

use crate::node::{AGENT, Fault, Handle, Node};
use crate::serve::emit;

const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

struct Options {
    listen: Vec<Multiaddr>,
    key: String,
    channels: channels::Options,
    record: bool,
    dht: Option<Mode>,
    dht_protocol: StreamProtocol,
    pubsub: bool,
    pubsub_policy: String,
    pubsub_score: bool,
}

fn main() {
    if let Err(error) = start() {
        eprintln!("{error}");
        exit(1);
    }
}

fn start() -> Result<(), Fault> {
    let options = options(std::env::args().skip(1))?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let mut node = Node::new(
            generate(&options.key)?,
            &options.channels,
            options.record,
            options.dht.map(|mode| (mode, options.dht_protocol)),
            options.pubsub.then_some((options.pubsub_policy.as_str(), options.pubsub_score)),
        )?;
        let addresses = node.listen(options.listen).await?;
        emit(json!({
            "event": "ready",
            "peer": node.swarm.local_peer_id().to_string(),
            "addresses": addresses,
            "agent": AGENT,
            "implementation": concat!("rust-libp2p v", env!("CARGO_PKG_VERSION")),
        }));
        let (jobs, queue) = mpsc::unbounded();
        let runtime = tokio::runtime::Handle::current();
        std::thread::spawn(move || read_commands(Handle(jobs), runtime));
        node.run(queue).await;
        Ok(())
    })
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options, Fault> {
    let mut options = Options {
        listen: Vec::new(),
        key: "ed25519".into(),
        channels: channels::Options {
            security: vec!["noise".into()],
            muxers: vec!["yamux".into()],
            psk: None,
            web_cert: None,
            web_key: None,
            web_trust: None,
        },
        record: false,
        dht: None,
        dht_protocol: PROTOCOL_NAME,
        pubsub: false,
        pubsub_policy: "sign".into(),
        pubsub_score: false,
    };
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        match (name.as_str(), value.as_str()) {
            ("--listen", _) => options.listen.push(value.parse()?),
            ("--key", _) => options.key = value,
            ("--record", "none" | "older") => options.record = value == "older",
            ("--dht", "off") => options.dht = None,
            ("--dht", "server") => options.dht = Some(Mode::Server),
            ("--dht", "client") => options.dht = Some(Mode::Client),
            ("--dht-protocol", _) => options.dht_protocol = StreamProtocol::try_from_owned(value)?,
            ("--pubsub", "off" | "gossipsub") => options.pubsub = value == "gossipsub",
            ("--pubsub-policy", _) => options.pubsub_policy = value,
            ("--pubsub-score", "off" | "on") => options.pubsub_score = value == "on",
            ("--security", names) => options.channels.security = list(names),
            ("--muxers", names) => options.channels.muxers = list(names),
            ("--psk", _) => options.channels.psk = Some(value),
            ("--web-cert", _) => options.channels.web_cert = Some(value),
            ("--web-key", _) => options.channels.web_key = Some(value),
            ("--web-trust", _) => options.channels.web_trust = Some(value),
            _ => Err(format!("cannot do {name} {value}"))?,
        }
    }
    if options.listen.is_empty() {
        options.listen.push("/ip4/127.0.0.1/tcp/0".parse()?);
    }
    Ok(options)
}

fn list(names: &str) -> Vec<String> {
    names.split(',').map(String::from).collect()
}

fn generate(kind: &str) -> Result<Keypair, Fault> {
    Ok(match kind {
        "ed25519" => Keypair::generate_ed25519(),
        "secp256k1" => Keypair::generate_secp256k1(),
        "ecdsa" => Keypair::generate_ecdsa(),
        "rsa" => {
            let key = rsa::RsaPrivateKey::new(&mut rand::rng(), 2048)?;
            Keypair::rsa_from_pkcs8(&mut key.to_pkcs8_der()?.as_bytes().to_vec())?
        }
        _ => Err(format!("cannot do --key {kind}"))?,
    })
}

/// Start a task per line; the end of stdin ends the program.
fn read_commands(node: Handle, runtime: tokio::runtime::Handle) {
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        match serde_json::from_str::<Value>(&line) {
            Ok(command) if command.is_object() => {
                drop(runtime.spawn(answer(node.clone(), command)))
            }
            _ => eprintln!("not a JSON object: {line}"),
        }
    }
    exit(0);
}

async fn answer(node: Handle, command: Value) {
    let work = commands::perform(&node, &command);
    let result = match tokio::time::timeout(COMMAND_TIMEOUT, work).await {
        Ok(result) => result,
        Err(_) => Err("timed out after 60 s".into()),
    };
    let mut message = match result {
        Ok(mut message) => {
            message["ok"] = true.into();
            message
        }
        Err(error) => {
            let words: Vec<_> = error.to_string().split_whitespace().map(String::from).collect();
            json!({"ok": false, "error": words.join(" ")})
        }
    };
    message["id"] = command["id"].clone();
    emit(message);
    if command["cmd"] == "stop" {
        exit(0);
    }
}
