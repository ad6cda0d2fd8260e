//! The listening side of every protocol, one task per stream.

use std::io;

use futures::prelude::*;
use libp2p::PeerId;
use libp2p::swarm::{Stream, StreamProtocol};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub const PING: &str = "/ipfs/ping/1.0.0";
pub const ECHO: &str = "/echo/1.0.0";
pub const PERF: &str = "/perf/1.0.0";
pub const AFTER_EOF: &str = "/conformance/after-eof/1.0.0";
pub const RESET_ME: &str = "/conformance/reset-me/1.0.0";
pub const WATCH_RESET: &str = "/conformance/watch-reset/1.0.0";
pub const SERVED: [&str; 6] = [PING, ECHO, PERF, AFTER_EOF, RESET_ME, WATCH_RESET];

pub const CHUNK: usize = 64 * 1024;

pub fn serve(peer: PeerId, stream: Stream, protocol: StreamProtocol) {
    tokio::spawn(async move {
        let result = match protocol.as_ref() {
            PING => ping(stream).await,
            ECHO => echo(stream).await,
            PERF => perf(stream).await,
            AFTER_EOF => after_eof(stream).await,
            RESET_ME => reset_me(stream).await,
            _ => watch_reset(peer, stream).await,
        };
        if let Err(error) = result {
            eprintln!("{protocol} of {peer}: {error}");
        }
    });
}

/// One line on stdout.
pub fn emit(message: Value) {
    use io::Write;
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{message}").and_then(|()| stdout.flush());
}

/// Whether a stream whose reading side ended, and which we did not half-close, was reset.
///
/// yamux reports a reset as the end of the stream; only writing fails, even of nothing.
pub async fn was_reset(stream: &mut Stream) -> bool {
    stream.write(&[]).await.is_err()
}

/// Write `size` zero bytes and half-close.
pub async fn write_zeros(stream: &mut Stream, mut size: u64) -> io::Result<()> {
    let zeros = vec![0; CHUNK];
    while size > 0 {
        let n = size.min(CHUNK as u64);
        stream.write_all(&zeros[..n as usize]).await?;
        size -= n;
    }
    stream.close().await
}

/// Read to EOF, handing each piece to `each`.
pub async fn drain(
    reader: &mut (impl AsyncRead + Unpin), mut each: impl FnMut(&[u8]),
) -> io::Result<u64> {
    let mut chunk = vec![0; CHUNK];
    let mut total = 0;
    loop {
        let n = reader.read(&mut chunk).await?;
        if n == 0 {
            return Ok(total);
        }
        each(&chunk[..n]);
        total += n as u64;
    }
}

pub fn hex(digest: impl AsRef<[u8]>) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn ping(mut stream: Stream) -> io::Result<()> {
    let mut payload = [0; 32];
    loop {
        match stream.read_exact(&mut payload).await {
            Ok(()) => stream.write_all(&payload).await?,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        }
        stream.flush().await?;
    }
    stream.close().await
}

async fn echo(mut stream: Stream) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let n = stream.read(&mut chunk).await?;
        if n == 0 {
            return stream.close().await;
        }
        stream.write_all(&chunk[..n]).await?;
        stream.flush().await?;
    }
}

async fn perf(mut stream: Stream) -> io::Result<()> {
    let mut size = [0; 8];
    stream.read_exact(&mut size).await?;
    drain(&mut stream, |_| ()).await?;
    write_zeros(&mut stream, u64::from_be_bytes(size)).await
}

async fn after_eof(mut stream: Stream) -> io::Result<()> {
    let mut digest = Sha256::new();
    drain(&mut stream, |data| digest.update(data)).await?;
    stream.write_all(hex(digest.finalize()).as_bytes()).await?;
    stream.close().await
}

async fn reset_me(mut stream: Stream) -> io::Result<()> {
    stream.read_exact(&mut [0]).await // and dropping an open stream resets it
}

async fn watch_reset(peer: PeerId, mut stream: Stream) -> io::Result<()> {
    stream.read_exact(&mut [0]).await?;
    stream.write_all(b"y").await?;
    stream.flush().await?;
    let peer = peer.to_string();
    if drain(&mut stream, |_| ()).await.is_err() || was_reset(&mut stream).await {
        emit(json!({"event": "stream_reset", "peer": peer, "code": null}));
    } else {
        emit(json!({"event": "stream_eof", "peer": peer}));
        stream.close().await?;
    }
    Ok(())
}
