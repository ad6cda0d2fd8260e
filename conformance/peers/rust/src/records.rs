//! Which records are valid and which is best. libp2p's Kademlia leaves that to its users.

use std::time::{SystemTime, UNIX_EPOCH};

use libp2p::PeerId;
use libp2p::identity::PublicKey;
use prost::Message;

use crate::node::Fault;

type Result<T> = std::result::Result<T, Fault>;

const SIGNED: &[u8] = b"ipns-signature:";
const MOST_IPNS: usize = 10 * 1024;

/// Whether the value may stand under that key now.
pub fn validate(key: &[u8], value: &[u8]) -> Result<()> {
    match split(key)? {
        ("pk", id) => match PublicKey::try_decode_protobuf(value)?.to_peer_id().to_bytes() == id {
            true => Ok(()),
            false => Err("the public key belongs to another peer than its key says".into()),
        },
        ("ipns", name) => {
            let record = Ipns::open(&PeerId::from_bytes(name)?, value)?;
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
            if record.validity <= rfc3339(now) {
                Err("the IPNS record has expired")?;
            }
            Ok(())
        }
        ("example", _) => Ok(()),
        (namespace, _) => Err(format!("there is no validator for {namespace:?}").into()),
    }
}

/// Whether a valid value is better than another one.
pub fn is_better(key: &[u8], value: &[u8], than: &[u8]) -> bool {
    match split(key) {
        Ok(("ipns", name)) => {
            let rank = |value| {
                let record = Ipns::open(&PeerId::from_bytes(name)?, value)?;
                Result::Ok((record.sequence, record.validity, value.to_vec()))
            };
            rank(value).is_ok_and(|rank_of_it| rank(than).is_ok_and(|other| rank_of_it > other))
        }
        Ok(("example", _)) => value > than,
        _ => false,
    }
}

fn split(key: &[u8]) -> Result<(&str, &[u8])> {
    let key = key.strip_prefix(b"/").ok_or("the key does not begin with a slash")?;
    let end = key.iter().position(|byte| *byte == b'/').ok_or("the key has no namespace")?;
    Ok((std::str::from_utf8(&key[..end])?, &key[end + 1..]))
}

#[derive(prost::Message)]
struct IpnsEntry {
    #[prost(bytes, optional, tag = "7")]
    public_key: Option<Vec<u8>>,
    #[prost(bytes, tag = "8")]
    signature: Vec<u8>,
    #[prost(bytes, tag = "9")]
    data: Vec<u8>,
}

/// What is compared of an IPNS record. The copies for old readers are not looked at.
struct Ipns {
    sequence: u64,
    validity: Vec<u8>,
}

impl Ipns {
    fn open(name: &PeerId, value: &[u8]) -> Result<Ipns> {
        if value.len() > MOST_IPNS {
            Err("the IPNS record is too long")?;
        }
        let entry = IpnsEntry::decode(value)?;
        let inline = name.to_bytes(); // an identity multihash: 0, its length, the key
        let key = match &entry.public_key {
            Some(key) => PublicKey::try_decode_protobuf(key)?,
            None if inline[0] == 0 => PublicKey::try_decode_protobuf(&inline[2..])?,
            None => Err("the IPNS record has no public key")?,
        };
        let signed = [SIGNED, &entry.data].concat();
        if key.to_peer_id() != *name || !key.verify(&signed, &entry.signature) {
            Err("the IPNS record is not signed by its name")?;
        }
        let mut record = Ipns { sequence: 0, validity: Vec::new() };
        let mut cbor = minicbor::Decoder::new(&entry.data);
        for _ in 0..cbor.map()?.ok_or("the IPNS record's data has no length")? {
            match cbor.str()? {
                "Sequence" => record.sequence = cbor.u64()?,
                "Validity" => record.validity = cbor.bytes()?.to_vec(),
                _ => cbor.skip()?,
            }
        }
        Ok(record)
    }
}

/// Seconds since 1970 as the beginning of a time in UTC: those texts sort as the times do.
fn rfc3339(seconds: u64) -> Vec<u8> {
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100); // of a year that begins in March
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + later;
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day_of_month:02}T{hour:02}:{minute:02}:{second:02}").into()
}
