//! The swarm in one task, and a handle through which commands put it to work.
//!
//! command --Job--> Node (owns the swarm) --answer--> command

use std::collections::HashMap;
use std::time::Duration;

use futures::channel::{mpsc, oneshot};
use futures::prelude::*;
use libp2p::core::ConnectedPoint;
use libp2p::kad::Mode;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{
    Config, ConnectionId, NetworkBehaviour, NotifyHandler, StreamProtocol, Swarm, SwarmEvent,
};
use libp2p::{Multiaddr, PeerId, gossipsub, identify, identity};

use crate::channels::{self, Agreed};
use crate::dht::{self, Dht, Queries};
use crate::pubsub::{self, Inboxes};
use crate::streams::{self, Opened};

pub type Fault = Box<dyn std::error::Error + Send + Sync>;
type Job = Box<dyn FnOnce(&mut Node) + Send>;
type Dialed = (PeerId, ConnectionId);

pub const AGENT: &str = concat!("conformance-rust/", env!("CARGO_PKG_VERSION"));
const VERSION: &str = "ipfs/0.1.0";
/// Of connections, and of the libraries' own exchanges: longer than any run.
const HOUR: Duration = Duration::from_secs(3600);
const MOST_STREAMS: usize = 4096;

#[derive(NetworkBehaviour)]
pub struct Protocols {
    identify: identify::Behaviour,
    streams: streams::Behaviour,
    dht: Toggle<Dht>,
    pubsub: Toggle<gossipsub::Behaviour>,
}

pub struct Node {
    pub swarm: Swarm<Protocols>,
    state: State,
}

#[derive(Default)]
struct State {
    agreed: Agreed,
    connections: HashMap<PeerId, Vec<ConnectionId>>,
    addresses: HashMap<ConnectionId, Multiaddr>,
    identified: HashMap<PeerId, identify::Info>,
    dialing: HashMap<ConnectionId, oneshot::Sender<Result<Dialed, String>>>,
    closing: HashMap<ConnectionId, Vec<oneshot::Sender<()>>>,
    identifying: HashMap<PeerId, Vec<oneshot::Sender<identify::Info>>>,
    queries: Queries,
    inboxes: Inboxes,
}

impl Node {
    /// `record`: let identify send a signed peer record, which is in libp2p's older format.
    /// `dht`: what to be in the Kademlia network of that protocol.
    /// `pubsub`: how its messages are signed, and whether peers are scored.
    pub fn new(
        key: identity::Keypair, options: &channels::Options, record: bool,
        dht: Option<(Mode, StreamProtocol)>, pubsub: Option<(&str, bool)>,
    ) -> Result<Node, Fault> {
        let router = |(policy, scored)| pubsub::behaviour(&key, policy, scored);
        let pubsub = pubsub.map(router).transpose()?;
        let config = match record {
            true => identify::Config::new_with_signed_peer_record(VERSION.into(), &key),
            false => identify::Config::new(VERSION.into(), key.public()),
        };
        let config = config
            .with_agent_version(AGENT.into())
            .with_push_listen_addr_updates(true)
            .with_interval(HOUR);
        let id = key.public().to_peer_id();
        let dht = dht.map(|(mode, protocol)| dht::behaviour(id, mode, protocol));
        let behaviour = Protocols {
            identify: identify::Behaviour::new(config),
            streams: streams::Behaviour::default(),
            dht: dht.into(),
            pubsub: pubsub.into(),
        };
        let state = State::default();
        let transport = channels::transport(&key, options, &state.agreed)?;
        let config = Config::with_tokio_executor()
            .with_idle_connection_timeout(HOUR)
            .with_max_negotiating_inbound_streams(MOST_STREAMS);
        Ok(Node { swarm: Swarm::new(transport, behaviour, id, config), state })
    }

    /// Listen everywhere; return the addresses once every listener has reported.
    pub async fn listen(&mut self, at: Vec<Multiaddr>) -> Result<Vec<String>, Fault> {
        let waiting = at.into_iter().map(|address| self.swarm.listen_on(address));
        let mut waiting = waiting.collect::<Result<Vec<_>, _>>()?;
        let mut found = Vec::new();
        loop {
            // A listener on all interfaces reports one by one: wait for a short silence.
            let patience = if waiting.is_empty() { Duration::from_millis(20) } else { HOUR };
            match tokio::time::timeout(patience, self.swarm.select_next_some()).await {
                Ok(SwarmEvent::NewListenAddr { listener_id, address }) => {
                    waiting.retain(|id| *id != listener_id);
                    if self.swarm.behaviour().dht.is_enabled() {
                        // Provider records carry only what is known to be reachable.
                        self.swarm.add_external_address(address.clone());
                    }
                    found.push(format!("{address}/p2p/{}", self.swarm.local_peer_id()));
                }
                Ok(SwarmEvent::ListenerClosed { reason: Err(error), .. }) => Err(error)?,
                Ok(event) => self.on_event(event),
                Err(_) => return Ok(found),
            }
        }
    }

    pub async fn run(mut self, mut jobs: mpsc::UnboundedReceiver<Job>) {
        loop {
            futures::select! {
                job = jobs.select_next_some() => job(&mut self),
                event = self.swarm.select_next_some() => self.on_event(event),
            }
        }
    }

    fn on_event(&mut self, event: SwarmEvent<ProtocolsEvent>) {
        if let Some(dht) = self.swarm.behaviour_mut().dht.as_mut() {
            dht::on_event(dht, &mut self.state.queries, &event);
        }
        pubsub::on_event(&mut self.state.inboxes, &event);
        self.state.on_event(event);
    }
}

impl State {
    fn on_event(&mut self, event: SwarmEvent<ProtocolsEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                // Of a connection that came in, the other side's address does not tell of TLS.
                let address = match endpoint {
                    ConnectedPoint::Dialer { address, .. } => address,
                    ConnectedPoint::Listener { local_addr, .. } => local_addr,
                };
                self.addresses.insert(connection_id, address);
                self.connections.entry(peer_id).or_default().push(connection_id);
                if let Some(answer) = self.dialing.remove(&connection_id) {
                    let _ = answer.send(Ok((peer_id, connection_id)));
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, num_established, .. } => {
                self.addresses.remove(&connection_id);
                self.connections.entry(peer_id).or_default().retain(|id| *id != connection_id);
                if num_established == 0 {
                    self.connections.remove(&peer_id);
                    self.identified.remove(&peer_id);
                    self.identifying.remove(&peer_id);
                }
                for answer in self.closing.remove(&connection_id).unwrap_or_default() {
                    let _ = answer.send(());
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                if let Some(answer) = self.dialing.remove(&connection_id) {
                    let _ = answer.send(Err(error.to_string()));
                }
            }
            SwarmEvent::IncomingConnectionError { error, .. } => eprintln!("inbound: {error:?}"),
            SwarmEvent::Behaviour(ProtocolsEvent::Identify(event)) => match event {
                identify::Event::Received { peer_id, info, .. } => {
                    for answer in self.identifying.remove(&peer_id).unwrap_or_default() {
                        let _ = answer.send(info.clone());
                    }
                    self.identified.insert(peer_id, info);
                }
                identify::Event::Error { peer_id, error, .. } => {
                    eprintln!("identify {peer_id}: {error}");
                }
                _ => {}
            },
            _ => {}
        }
    }
}

/// What commands hold: every method is a question to the task that owns the swarm.
#[derive(Clone)]
pub struct Handle(pub mpsc::UnboundedSender<Job>);

impl Handle {
    async fn ask<T: Send + 'static>(
        &self, job: impl FnOnce(&mut Node, oneshot::Sender<T>) + Send + 'static,
    ) -> Result<T, Fault> {
        let (answer, answered) = oneshot::channel();
        let _ = self.0.unbounded_send(Box::new(move |node| job(node, answer)));
        answered.await.map_err(|_| "not connected to that peer".into())
    }

    /// Dial even if there is a connection already.
    ///
    /// libp2p calls a connection established before the listener has confirmed the muxer.
    pub async fn dial(&self, to: Multiaddr) -> Result<Dialed, Fault> {
        // A port of its own: the same pair of ports again would meet TIME_WAIT.
        let options = DialOpts::unknown_peer_id().address(to).allocate_new_port().build();
        let dialed = self.ask(|node, answer| {
            let id = options.connection_id();
            match node.swarm.dial(options) {
                Ok(()) => drop(node.state.dialing.insert(id, answer)),
                Err(error) => drop(answer.send(Err(error.to_string()))),
            }
        });
        Ok(dialed.await??)
    }

    pub async fn connections(&self) -> Result<HashMap<PeerId, Vec<ConnectionId>>, Fault> {
        self.ask(|node, answer| drop(answer.send(node.state.connections.clone()))).await
    }

    /// The names of the channels to every peer.
    pub async fn channels(&self) -> Result<HashMap<String, Vec<String>>, Fault> {
        self.ask(|Node { state, .. }, answer| {
            let named = state.connections.iter().map(|(peer, ids)| {
                let addresses = ids.iter().filter_map(|id| state.addresses.get(id));
                let names = addresses.map(|address| state.agreed.channel(peer, address)).collect();
                (peer.to_string(), names)
            });
            let _ = answer.send(named.collect());
        })
        .await
    }

    /// Close a connection and wait until it is gone.
    pub async fn close(&self, id: ConnectionId) -> Result<(), Fault> {
        self.ask(move |node, answer| {
            if node.swarm.close_connection(id) {
                node.state.closing.entry(id).or_default().push(answer);
            } else {
                let _ = answer.send(());
            }
        })
        .await
    }

    /// What identify learned about the peer; waits while it is under way.
    pub async fn identify(&self, peer: PeerId) -> Result<identify::Info, Fault> {
        self.ask(move |Node { state, .. }, answer| match state.identified.get(&peer) {
            Some(info) => drop(answer.send(info.clone())),
            None if state.connections.contains_key(&peer) => {
                state.identifying.entry(peer).or_default().push(answer);
            }
            None => {}
        })
        .await
    }

    /// Open a stream over any connection to the peer, or over that one.
    pub async fn open(
        &self, peer: PeerId, over: Option<ConnectionId>, protocols: Vec<StreamProtocol>,
    ) -> Result<Opened, Fault> {
        let over = over.map_or(NotifyHandler::Any, NotifyHandler::One);
        let open = self.ask(move |node, answer| {
            node.swarm.behaviour_mut().streams.open(peer, over, protocols, answer);
        });
        Ok(open.await??)
    }

    /// Do something with pubsub.
    pub async fn pubsub<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut gossipsub::Behaviour, &mut Inboxes) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        self.ask(|node, answer| {
            let result = match node.swarm.behaviour_mut().pubsub.as_mut() {
                Some(router) => job(router, &mut node.state.inboxes),
                None => Err("started without --pubsub".into()),
            };
            let _ = answer.send(result);
        })
        .await?
    }

    /// Do something with the Kademlia network.
    pub async fn dht<T: Send + 'static>(
        &self, job: impl FnOnce(&mut Dht, &mut Queries) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        self.ask(|node, answer| {
            let result = match node.swarm.behaviour_mut().dht.as_mut() {
                Some(dht) => job(dht, &mut node.state.queries),
                None => Err("started without --dht".into()),
            };
            let _ = answer.send(result);
        })
        .await?
    }
}
