//! Raw streams as a network behaviour: any number at once, each offering a list of protocols.
//!
//! Node --Open--> Behaviour --NotifyHandler--> Handler --OutboundSubstreamRequest--> connection
//! Node <------------------ answer: stream and protocol, or why not --------------- Handler
//!
//! libp2p-stream is not used: it drops inbound streams that arrive faster than they are taken, and
//! it offers one protocol at a time.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::channel::oneshot;
use libp2p::PeerId;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::handler::{ConnectionEvent, DialUpgradeError};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
    NetworkBehaviour, NotifyHandler, Stream, StreamProtocol, StreamUpgradeError, SubstreamProtocol,
    ToSwarm,
};

use crate::serve::{SERVED, serve};

const NEGOTIATION_TIMEOUT: Duration = Duration::from_secs(60);

pub type Opened = (Stream, StreamProtocol);
type Answer = oneshot::Sender<Result<Opened, String>>;

#[derive(Debug)]
pub struct Open(Vec<StreamProtocol>, Answer);

#[derive(Default)]
pub struct Behaviour {
    queue: VecDeque<ToSwarm<Infallible, Open>>,
}

impl Behaviour {
    /// Open a stream; the answer is dropped when there is no such connection.
    pub fn open(
        &mut self, peer_id: PeerId, handler: NotifyHandler, offer: Vec<StreamProtocol>,
        answer: Answer,
    ) {
        let event = Open(offer, answer);
        self.queue.push_back(ToSwarm::NotifyHandler { peer_id, handler, event });
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self, _: ConnectionId, peer: PeerId, _: &Multiaddr, _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(Handler { peer, queue: VecDeque::new() })
    }

    fn handle_established_outbound_connection(
        &mut self, _: ConnectionId, peer: PeerId, _: &Multiaddr, _: Endpoint, _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(Handler { peer, queue: VecDeque::new() })
    }

    fn on_swarm_event(&mut self, _: FromSwarm) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, never: Infallible) {
        match never {}
    }

    // No waker: the node polls the swarm after every call of open().
    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, Open>> {
        self.queue.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

pub struct Handler {
    peer: PeerId,
    queue: VecDeque<Open>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = Infallible;
    type InboundProtocol = Offer;
    type OutboundProtocol = Offer;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Answer;

    fn listen_protocol(&self) -> SubstreamProtocol<Offer> {
        let offer = Offer(SERVED.map(StreamProtocol::new).into());
        SubstreamProtocol::new(offer, ()).with_timeout(NEGOTIATION_TIMEOUT)
    }

    fn on_behaviour_event(&mut self, open: Open) {
        self.queue.push_back(open);
    }

    fn poll(
        &mut self, _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Offer, Answer, Infallible>> {
        self.queue.pop_front().map_or(Poll::Pending, |Open(offer, answer)| {
            let protocol = SubstreamProtocol::new(Offer(offer), answer);
            let protocol = protocol.with_timeout(NEGOTIATION_TIMEOUT);
            Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol })
        })
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<Offer, Offer, (), Answer>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(new) => {
                serve(self.peer, new.protocol.0, new.protocol.1);
            }
            ConnectionEvent::FullyNegotiatedOutbound(new) => {
                let _ = new.info.send(Ok(new.protocol));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                let reason = match error {
                    StreamUpgradeError::Timeout => "the negotiation timed out".into(),
                    StreamUpgradeError::NegotiationFailed => "no protocol in common".into(),
                    StreamUpgradeError::Io(error) => format!("the negotiation failed: {error}"),
                    StreamUpgradeError::Apply(never) => match never {},
                };
                let _ = info.send(Err(reason));
            }
            _ => {}
        }
    }
}

/// An upgrade that ends with the negotiation: it hands out the stream as it is.
pub struct Offer(Vec<StreamProtocol>);

impl UpgradeInfo for Offer {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for Offer {
    type Output = Opened;
    type Error = Infallible;
    type Future = Ready<Result<Opened, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}

impl OutboundUpgrade<Stream> for Offer {
    type Output = Opened;
    type Error = Infallible;
    type Future = Ready<Result<Opened, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}
