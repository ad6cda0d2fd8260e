//! What lies between a socket and a stream, chosen when the peer starts.
//!
//! TCP or WebSocket -> private network -> security -> muxer
//! QUIC

use std::collections::HashMap;
use std::fs;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::prelude::*;
use libp2p::core::UpgradeInfo;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::timeout::TransportTimeout;
use libp2p::core::transport::{Boxed, OptionalTransport};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, Version};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::pnet::{PnetConfig, PnetError, PreSharedKey};
use libp2p::{Multiaddr, PeerId, Transport, noise, plaintext, quic, tcp, tls, yamux};
use libp2p_websocket as websocket;

use crate::node::Fault;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const MOST_STREAMS: usize = 4096;

/// What the options say.
pub struct Options {
    pub security: Vec<String>,
    pub muxers: Vec<String>,
    pub psk: Option<String>,
    pub web_cert: Option<String>,
    pub web_key: Option<String>,
    pub web_trust: Option<String>,
}

/// What was agreed on with each peer, last.
#[derive(Clone, Default)]
pub struct Agreed(Arc<Mutex<HashMap<PeerId, [&'static str; 2]>>>);

impl Agreed {
    /// The name of the channel to that peer: `tcp+noise+yamux`, or `quic-v1`.
    pub fn channel(&self, peer: &PeerId, address: &Multiaddr) -> String {
        let has = |wanted: &[Protocol]| address.iter().any(|part| wanted.contains(&part));
        let socket = match () {
            () if has(&[Protocol::QuicV1]) => return "quic-v1".into(),
            () if has(&[Protocol::Wss("/".into()), Protocol::Tls]) => "wss",
            () if has(&[Protocol::Ws("/".into())]) => "ws",
            () => "tcp",
        };
        let known = self.0.lock().unwrap().get(peer).copied();
        let [security, muxer] = known.unwrap_or(["?", "?"]);
        format!("{socket}+{security}+{muxer}")
    }

    fn set(&self, peer: PeerId, at: usize, name: &'static str) {
        self.0.lock().unwrap().entry(peer).or_insert(["?", "?"])[at] = name;
    }
}

pub fn transport(
    key: &Keypair, options: &Options, agreed: &Agreed,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, Fault> {
    let new_tcp = || tcp::tokio::Transport::new(tcp::Config::default());
    let mut web = websocket::Config::new(new_tcp());
    web.set_tls_config(web_tls(options)?);
    let psk = options
        .psk
        .as_ref()
        .map(|path| -> Result<PreSharedKey, Fault> { Ok(fs::read_to_string(path)?.parse()?) });
    let psk = psk.transpose()?;
    let sockets = web.or_transport(new_tcp()).map(|socket, _| Box::new(socket) as Pipe);
    let sockets = sockets.and_then(move |socket, _| protect(psk, socket));
    let muxers = Muxers::new(&options.muxers, agreed)?;
    let layered = sockets
        .upgrade(Version::V1Lazy)
        .authenticate(Securities::new(&options.security, key, agreed)?)
        .multiplex_ext(move |peer, _| Muxers { peer: Some(*peer), ..muxers.clone() });
    let datagrams = || {
        let mut config = quic::Config::new(key);
        config.max_concurrent_stream_limit = MOST_STREAMS as u32;
        quic::tokio::Transport::new(config)
            .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
    };
    let datagrams = match psk {
        None => OptionalTransport::some(datagrams()),
        Some(_) => OptionalTransport::none(), // it would go around the private network
    };
    let both = datagrams.or_transport(layered).map(|either, _| either.into_inner());
    Ok(TransportTimeout::new(both, HANDSHAKE_TIMEOUT).boxed())
}

/// Any stream of bytes; one type for all, so that the layers are compiled once.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}
type Pipe = Box<dyn Duplex>;
type Later<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

async fn protect(psk: Option<PreSharedKey>, socket: Pipe) -> Result<Pipe, PnetError> {
    Ok(match psk {
        Some(key) => Box::new(PnetConfig::new(key).handshake(socket).await?),
        None => socket,
    })
}

#[derive(Clone)]
enum Security {
    Noise(noise::Config),
    Tls(tls::Config),
    Plaintext(plaintext::Config),
}

/// The security protocols on offer, the preferred one first.
#[derive(Clone)]
pub struct Securities(Vec<(&'static str, &'static str, Security)>, Agreed);

impl Securities {
    fn new(names: &[String], key: &Keypair, agreed: &Agreed) -> Result<Self, Fault> {
        let offer = |name: &String| -> Result<_, Fault> {
            Ok(match name.as_str() {
                "noise" => ("/noise", "noise", Security::Noise(noise::Config::new(key)?)),
                "tls" => ("/tls/1.0.0", "tls", Security::Tls(tls::Config::new(key)?)),
                "plaintext" => {
                    let config = plaintext::Config::new(key);
                    ("/plaintext/2.0.0", "plaintext", Security::Plaintext(config))
                }
                _ => Err(format!("cannot do --security {name}"))?,
            })
        };
        Ok(Securities(names.iter().map(offer).collect::<Result<_, _>>()?, agreed.clone()))
    }

    fn take(&self, protocol: &str) -> (&'static str, Security) {
        let found = self.0.iter().find(|offer| offer.0 == protocol).expect("we offered it");
        (found.1, found.2.clone())
    }
}

impl UpgradeInfo for Securities {
    type Info = &'static str;
    type InfoIter = std::vec::IntoIter<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.iter().map(|offer| offer.0).collect::<Vec<_>>().into_iter()
    }
}

/// The peer and its stream, whatever type the upgrade gives it.
async fn secured<S: Duplex + 'static, E: std::error::Error + Send + Sync + 'static>(
    upgrade: impl Future<Output = Result<(PeerId, S), E>>, name: &'static str, agreed: Agreed,
) -> io::Result<(PeerId, Pipe)> {
    let (peer, stream) = upgrade.await.map_err(io::Error::other)?;
    agreed.set(peer, 0, name);
    Ok((peer, Box::new(stream)))
}

impl<C: Duplex + 'static> InboundConnectionUpgrade<C> for Securities {
    type Output = (PeerId, Pipe);
    type Error = io::Error;
    type Future = Later<Self::Output>;

    fn upgrade_inbound(self, socket: C, protocol: &'static str) -> Self::Future {
        let (name, security) = self.take(protocol);
        match security {
            Security::Noise(it) => {
                secured(it.upgrade_inbound(socket, protocol), name, self.1).boxed()
            }
            Security::Tls(it) => {
                secured(it.upgrade_inbound(socket, protocol), name, self.1).boxed()
            }
            Security::Plaintext(it) => {
                secured(it.upgrade_inbound(socket, protocol), name, self.1).boxed()
            }
        }
    }
}

impl<C: Duplex + 'static> OutboundConnectionUpgrade<C> for Securities {
    type Output = (PeerId, Pipe);
    type Error = io::Error;
    type Future = Later<Self::Output>;

    fn upgrade_outbound(self, socket: C, protocol: &'static str) -> Self::Future {
        let (name, security) = self.take(protocol);
        match security {
            Security::Noise(it) => {
                secured(it.upgrade_outbound(socket, protocol), name, self.1).boxed()
            }
            Security::Tls(it) => {
                secured(it.upgrade_outbound(socket, protocol), name, self.1).boxed()
            }
            Security::Plaintext(it) => {
                secured(it.upgrade_outbound(socket, protocol), name, self.1).boxed()
            }
        }
    }
}

#[derive(Clone)]
enum Muxer {
    Yamux(yamux::Config),
    Mplex(libp2p_mplex::Config),
}

/// The muxers on offer, the preferred one first.
#[derive(Clone)]
pub struct Muxers {
    offers: Vec<(&'static str, &'static str, Muxer)>,
    agreed: Agreed,
    peer: Option<PeerId>,
}

impl Muxers {
    fn new(names: &[String], agreed: &Agreed) -> Result<Self, Fault> {
        let offer = |name: &String| -> Result<_, Fault> {
            Ok(match name.as_str() {
                "yamux" => {
                    let mut config = yamux::Config::default();
                    config.set_max_num_streams(MOST_STREAMS);
                    ("/yamux/1.0.0", "yamux", Muxer::Yamux(config))
                }
                "mplex" => {
                    let mut config = libp2p_mplex::Config::default();
                    config.set_max_num_streams(MOST_STREAMS);
                    ("/mplex/6.7.0", "mplex", Muxer::Mplex(config))
                }
                _ => Err(format!("cannot do --muxers {name}"))?,
            })
        };
        let offers = names.iter().map(offer).collect::<Result<_, _>>()?;
        Ok(Muxers { offers, agreed: agreed.clone(), peer: None })
    }

    fn take(&self, protocol: &str) -> Muxer {
        let found = self.offers.iter().find(|offer| offer.0 == protocol).expect("we offered it");
        if let Some(peer) = self.peer {
            self.agreed.set(peer, 1, found.1);
        }
        found.2.clone()
    }
}

impl UpgradeInfo for Muxers {
    type Info = &'static str;
    type InfoIter = std::vec::IntoIter<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.offers.iter().map(|offer| offer.0).collect::<Vec<_>>().into_iter()
    }
}

impl<C: Duplex + 'static> InboundConnectionUpgrade<C> for Muxers {
    type Output = StreamMuxerBox;
    type Error = io::Error;
    type Future = Later<Self::Output>;

    fn upgrade_inbound(self, socket: C, protocol: &'static str) -> Self::Future {
        match self.take(protocol) {
            Muxer::Yamux(it) => {
                it.upgrade_inbound(socket, protocol).map_ok(StreamMuxerBox::new).boxed()
            }
            Muxer::Mplex(it) => {
                it.upgrade_inbound(socket, protocol).map_ok(StreamMuxerBox::new).boxed()
            }
        }
    }
}

impl<C: Duplex + 'static> OutboundConnectionUpgrade<C> for Muxers {
    type Output = StreamMuxerBox;
    type Error = io::Error;
    type Future = Later<Self::Output>;

    fn upgrade_outbound(self, socket: C, protocol: &'static str) -> Self::Future {
        match self.take(protocol) {
            Muxer::Yamux(it) => {
                it.upgrade_outbound(socket, protocol).map_ok(StreamMuxerBox::new).boxed()
            }
            Muxer::Mplex(it) => {
                it.upgrade_outbound(socket, protocol).map_ok(StreamMuxerBox::new).boxed()
            }
        }
    }
}

fn web_tls(options: &Options) -> Result<websocket::tls::Config, Fault> {
    let mut config = websocket::tls::Config::builder();
    if let (Some(certificate), Some(key)) = (&options.web_cert, &options.web_key) {
        let chain = pem(certificate)?.into_iter().map(websocket::tls::Certificate::new);
        let key = pem(key)?.pop().ok_or("no key in the file")?;
        config.server(websocket::tls::PrivateKey::new(key), chain)?;
    }
    if let Some(trusted) = &options.web_trust {
        for certificate in pem(trusted)? {
            config.add_trust(&websocket::tls::Certificate::new(certificate))?;
        }
    }
    Ok(config.finish())
}

/// What the blocks of a PEM file hold.
fn pem(path: &str) -> Result<Vec<Vec<u8>>, Fault> {
    let mut blocks = Vec::new();
    for line in fs::read_to_string(path)?.lines() {
        if line.starts_with("-----BEGIN") {
            blocks.push(String::new());
        } else if let (false, Some(block)) = (line.starts_with("-----END"), blocks.last_mut()) {
            block.push_str(line.trim());
        }
    }
    Ok(blocks.iter().map(|block| base64(block)).collect::<Option<_>>().ok_or("not base64")?)
}

fn base64(text: &str) -> Option<Vec<u8>> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0u32, 0);
    for digit in text.trim_end_matches('=').bytes() {
        bits = bits << 6 | DIGITS.iter().position(|known| *known == digit)? as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Some(bytes)
}
