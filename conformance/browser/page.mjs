// What runs in the browser: it dials each address that the harness names, and reports.
//
//     page                              harness, which serves this page
//       |-- GET /jobs ------------------->|
//       |<- [{channel, address, muxer}] --|
//       |== dials, pings, echoes ================> our peer
//       |-- POST /report {channel, ...} ->|  which looks at the connection from our side
//       |<- 200 --------------------------|
//       |  hangs up; the next one

import { identify } from '@libp2p/identify'
import { mplex } from '@libp2p/mplex'
import { noise } from '@libp2p/noise'
import { ping } from '@libp2p/ping'
import { webSockets } from '@libp2p/websockets'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'

const TIMEOUT = 20_000
const ECHO = '/echo/1.0.0'
const CHUNK = 64 * 1024
const MUXERS = { yamux: () => yamux(), mplex: () => mplex({ disconnectThreshold: Infinity }) }

/** The echo data: byte i is (i * 7 + i // 256) % 251. */
function pattern (size) {
  return Uint8Array.from({ length: size }, (_, i) => (i * 7 + (i >>> 8)) % 251)
}

/** Writes data and half-closes while reading to the end; returns what came back. */
async function exchange (stream, data) {
  const parts = []
  const ended = new Promise((resolve, reject) => {
    stream.addEventListener('message', ({ data }) => parts.push(data.subarray()))
    stream.addEventListener('end', resolve)
    stream.addEventListener('close', ({ error }) => { if (error != null) reject(error) })
  })
  for (let at = 0; at < data.length; at += CHUNK) {
    if (!stream.send(data.subarray(at, at + CHUNK))) await stream.onDrain()
  }
  await stream.close()
  await ended
  return new Uint8Array(await new Blob(parts).arrayBuffer())
}

async function perform ({ channel, address, muxer, size }, finished) {
  const signal = AbortSignal.timeout(TIMEOUT)
  const node = await createLibp2p({
    nodeInfo: { userAgent: 'conformance-browser' },
    transports: [webSockets()],
    connectionEncrypters: [noise()],
    streamMuxers: [MUXERS[muxer]()],
    connectionGater: { denyDialMultiaddr: () => false }, // browsers deny addresses like ours
    connectionMonitor: { enabled: false },
    services: { identify: identify(), ping: ping() }
  })
  try {
    const identified = new Promise(resolve => {
      node.addEventListener('peer:identify', event => resolve(event.detail), { once: true })
    })
    const connection = await node.dial(multiaddr(address), { signal })
    const rtt = await node.services.ping.ping(connection.remotePeer, { signal })
    const data = pattern(size)
    const got = await exchange(await connection.newStream(ECHO, { signal }), data)
    const { agentVersion } = await identified
    await finished({
      channel,
      peer: node.peerId.toString(),
      agent: agentVersion,
      muxer: connection.multiplexer,
      security: connection.encryption,
      rtt: rtt / 1000,
      received: got.length,
      equal: got.length === size && got.every((byte, i) => byte === data[i])
    })
  } finally {
    await node.stop()
  }
}

const report = result => fetch('/report', { method: 'POST', body: JSON.stringify(result) })
for (const job of await (await fetch('/jobs')).json()) {
  try {
    await perform(job, report)
  } catch (error) {
    await report({ channel: job.channel, error: String(error?.stack ?? error) })
  }
}
