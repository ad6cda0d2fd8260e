// The js conformance peer: JSON lines on stdin and stdout, logs on stderr.
//
//     harness -> {"id":1,"cmd":"ping","peer":"12D3..."}
//             <- {"id":1,"ok":true,"rtts":[0.0004]}
//
// channels.mjs says what lies between a socket and a stream.

import { createHash, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { generateKeyPair } from '@libp2p/crypto/keys'
import { identify, identifyPush } from '@libp2p/identify'
import { ping } from '@libp2p/ping'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import { channelOf, channels } from './channels.mjs'
import { dhtCommands, dhtServices } from './dht.mjs'
import { pubsubCommands, pubsubServices } from './pubsub.mjs'

const COMMAND_TIMEOUT = 60_000
const MANY = 100_000
const CHUNK = 64 * 1024
const ZEROS = new Uint8Array(CHUNK)
const KEYS = { ed25519: 'Ed25519', secp256k1: 'secp256k1', rsa: 'RSA' }
const PING = '/ipfs/ping/1.0.0'
const ECHO = '/echo/1.0.0'
const PERF = '/perf/1.0.0'
const AFTER_EOF = '/conformance/after-eof/1.0.0'
const RESET_ME = '/conformance/reset-me/1.0.0'
const WATCH_RESET = '/conformance/watch-reset/1.0.0'

const now = () => performance.now() / 1000
const sha256 = data => createHash('sha256').update(data).digest('hex')
const emit = line => process.stdout.write(JSON.stringify(line) + '\n')

/** The echo data: byte i is (i * 7 + i // 256) % 251. */
function pattern (size) {
  const data = Buffer.alloc(size)
  for (let i = 0; i < size; i++) data[i] = (i * 7 + (i >>> 8)) % 251
  return data
}

// ---- streams: the library gives events, the code below wants promises

/** Settles at EOF, or rejects when the stream is reset or aborted; onChunk gets every piece. */
function read (stream, onChunk) {
  return new Promise((resolve, reject) => {
    const end = () => {
      if (stream.status === 'reset' || stream.status === 'aborted') reject(new Error(`stream ${stream.status}`))
      else resolve()
    }
    stream.addEventListener('end', end)
    stream.addEventListener('close', event => { if (event.error != null) reject(event.error) })
    stream.addEventListener('message', ({ data }) => {
      for (const part of data instanceof Uint8Array ? [data] : data) onChunk(part)
    })
    if (stream.readableEnded) end()
  })
}

/** Waits until the stream takes more; stream.onDrain() holds a writer up only the first time. */
async function drained (stream) {
  while (stream.writableNeedsDrain) {
    if (stream.status !== 'open') throw new Error(`stream ${stream.status}`)
    await new Promise(resolve => {
      stream.addEventListener('drain', resolve, { once: true })
      stream.addEventListener('close', resolve, { once: true })
    })
  }
}

async function write (stream, data) {
  for (let at = 0; at < data.length; at += CHUNK) {
    if (!stream.send(data.subarray(at, at + CHUNK))) await drained(stream)
  }
}

async function writeZeros (stream, count) {
  for (; count > 0; count -= CHUNK) await write(stream, ZEROS.subarray(0, Math.min(count, CHUNK)))
}

/** Returns a function that reads exactly n bytes. */
function reader (stream) {
  let buffer = Buffer.alloc(0)
  let wake = () => {}
  const closed = read(stream, part => { buffer = Buffer.concat([buffer, part]); wake() })
    .then(() => { throw new Error('unexpected EOF') })
  closed.catch(() => {})
  return async n => {
    while (buffer.length < n) await Promise.race([closed, new Promise(resolve => { wake = resolve })])
    const taken = buffer.subarray(0, n)
    buffer = buffer.subarray(n)
    return taken
  }
}

/** Writes data and half-closes while reading to EOF. */
async function exchange (stream, data) {
  const parts = []
  await Promise.all([
    read(stream, part => parts.push(part)),
    write(stream, data).then(() => stream.close())
  ])
  return Buffer.concat(parts)
}

// ---- what is served, besides identify and ping of the library

const handlers = {
  [ECHO]: async stream => {
    // The library's resume() opens the window even when its own 'message' event paused again,
    // so the pause has to wait until resume() is over.
    const hold = () => {
      if (stream.readStatus !== 'readable') return
      stream.pause()
      drained(stream).then(() => { if (stream.readStatus === 'paused') stream.resume() }, () => {})
    }
    await read(stream, part => { if (!stream.send(part)) queueMicrotask(hold) })
    await stream.close()
  },
  [PERF]: async stream => {
    let header = Buffer.alloc(0)
    await read(stream, part => {
      if (header.length < 8) header = Buffer.concat([header, part.subarray(0, 8 - header.length)])
    })
    await writeZeros(stream, Number(header.readBigUInt64BE()))
    await stream.close()
  },
  [AFTER_EOF]: async stream => {
    const hash = createHash('sha256')
    await read(stream, part => hash.update(part))
    await write(stream, Buffer.from(hash.digest('hex')))
    await stream.close()
  },
  [RESET_ME]: async stream => {
    await reader(stream)(1)
    stream.abort(new Error('asked to reset'))
  },
  [WATCH_RESET]: async (stream, connection) => {
    const peer = connection.remotePeer.toString()
    let asked = false
    try {
      await read(stream, () => {
        if (!asked) stream.send(Buffer.from('y'))
        asked = true
      })
      emit({ event: 'stream_eof', peer })
      await stream.close()
    } catch {
      if (stream.status === 'reset') emit({ event: 'stream_reset', peer, code: null })
    }
  }
}

// ---- commands

function connectionTo (peer) {
  const found = node.getConnections().find(c => c.status === 'open' && c.remotePeer.toString() === peer)
  if (found == null) throw new Error('not connected')
  return found
}

function openStream (c, ...protocols) {
  return connectionTo(c.peer).newStream(protocols, { signal: c.signal, maxOutboundStreams: MANY })
}

/** Runs use(stream), and resets the stream when that fails or the command takes too long. */
async function using (c, stream, use) {
  const stop = () => stream.abort(c.signal.reason)
  c.signal.addEventListener('abort', stop)
  try {
    return await use(stream)
  } catch (error) {
    stream.abort(error)
    throw error
  } finally {
    c.signal.removeEventListener('abort', stop)
  }
}

const commands = {
  dial: async c => {
    const connection = await node.dial(multiaddr(c.address), { signal: c.signal })
    return { peer: connection.remotePeer.toString() }
  },
  disconnect: async c => {
    const open = node.getConnections().filter(connection => connection.remotePeer.toString() === c.peer)
    if (open.length > 0) await node.hangUp(open[0].remotePeer, { signal: c.signal })
  },
  connections: async () => {
    const names = Object.groupBy(node.getConnections(), connection => connection.remotePeer.toString())
    for (const peer in names) names[peer] = names[peer].map(channelOf)
    return { peers: node.getPeers().map(String), channels: names }
  },
  ping: async c => using(c, await openStream(c, PING), async stream => {
    const next = reader(stream)
    const rtts = []
    for (let i = 0; i < (c.count ?? 1); i++) {
      const data = randomBytes(32)
      const start = now()
      await write(stream, data)
      const pong = await next(32)
      rtts.push(now() - start)
      if (!data.equals(pong)) throw new Error('the pong differs')
    }
    await stream.close()
    return { rtts }
  }),
  identify: async c => {
    const connection = connectionTo(c.peer)
    await identifying.get(connection)
    const result = identified.get(connection)
    return {
      peer: result.peerId.toString(),
      agent: result.agentVersion ?? null,
      protocol_version: result.protocolVersion ?? null,
      protocols: result.protocols,
      addresses: result.listenAddrs.map(String),
      observed: result.observedAddr?.toString() ?? null,
      signed_record: result.signedPeerRecord != null,
      key_type: result.peerId.type.toLowerCase()
    }
  },
  echo: async c => {
    const data = pattern(c.size)
    const start = now()
    const got = await using(c, await openStream(c, ECHO), stream => exchange(stream, data))
    const seconds = now() - start
    return { sent: data.length, received: got.length, sha256: sha256(got), equal: got.equals(data), seconds }
  },
  perf: async c => {
    const start = now()
    return using(c, await openStream(c, PERF), async stream => {
      const header = Buffer.alloc(8)
      header.writeBigUInt64BE(BigInt(c.download))
      let received = 0
      let answered
      const first = new Promise(resolve => { answered = resolve })
      const ended = read(stream, part => { received += part.length; answered() })
      const send = async () => {
        await write(stream, header)
        await writeZeros(stream, c.upload)
        await stream.close()
      }
      await Promise.all([send(), Promise.race([first, ended])])
      const uploaded = now()
      await ended
      return { upload_seconds: uploaded - start, download_seconds: now() - uploaded, received }
    })
  },
  half_close: async c => {
    const data = pattern(100_000)
    const got = await using(c, await openStream(c, AFTER_EOF), stream => exchange(stream, data))
    return { equal: got.toString() === sha256(data) }
  },
  reset_by_them: async c => using(c, await openStream(c, RESET_ME), async stream => {
    const ended = read(stream, () => {}).catch(() => {})
    await write(stream, Buffer.from('x'))
    await Promise.race([ended, sleep(10_000, null, { ref: false })])
    const reset = stream.status === 'reset'
    if (!reset) stream.abort(new Error('no reset came'))
    return { reset, code: null }
  }),
  reset_by_us: async c => using(c, await openStream(c, WATCH_RESET), async stream => {
    const next = reader(stream)
    await write(stream, Buffer.from('x'))
    await next(1)
    stream.abort(new Error('asked to reset'))
  }),
  many: async c => {
    const data = pattern(c.size ?? 1024)
    const opening = Array.from({ length: c.count }, () => openStream(c, ECHO))
    const open = (await Promise.allSettled(opening)).flatMap(o => o.value ?? [])
    const echoes = await Promise.allSettled(open.map(s => using(c, s, stream => exchange(stream, data))))
    return { done: echoes.filter(e => e.value?.equals(data)).length }
  },
  streams: async c => {
    const data = pattern(32)
    const start = now()
    for (let i = 0; i < c.count; i++) {
      const got = await using(c, await openStream(c, ECHO), stream => exchange(stream, data))
      if (!got.equals(data)) throw new Error('the echo differs')
    }
    return { seconds: now() - start }
  },
  connects: async c => {
    const address = multiaddr(c.address)
    let seconds = 0
    for (let i = 0; i < c.count; i++) {
      const start = now()
      const connection = await node.dial(address, { signal: c.signal })
      seconds += now() - start
      await node.hangUp(connection.remotePeer, { signal: c.signal })
    }
    return { seconds }
  },
  cpu: async () => {
    const { user, system } = process.cpuUsage()
    return { seconds: (user + system) / 1e6, rss: process.memoryUsage.rss() }
  },
  open_stream: async c => using(c, await openStream(c, ...c.protocols), async stream => {
    await stream.close()
    return { protocol: stream.protocol }
  }),
  stop: async () => {}
}

async function run (c) {
  c.signal = AbortSignal.timeout(COMMAND_TIMEOUT)
  try {
    if (c.cmd.startsWith('dht_') && node.services.dht == null) throw new Error('started without --dht')
    if (c.cmd.startsWith('pubsub_') && node.services.pubsub == null) throw new Error('started without --pubsub')
    if (!Object.hasOwn(commands, c.cmd)) throw new Error(`unknown command ${c.cmd}`)
    emit({ id: c.id, ok: true, ...await commands[c.cmd](c) })
  } catch (error) {
    emit({ id: c.id ?? null, ok: false, error: String(error?.message || error) })
  }
}

// ---- start

const { values: options } = parseArgs({
  options: {
    listen: { type: 'string', multiple: true, default: ['/ip4/127.0.0.1/tcp/0'] },
    key: { type: 'string', default: 'ed25519' },
    muxers: { type: 'string', default: 'yamux' },
    security: { type: 'string', default: 'noise' },
    psk: { type: 'string' },
    'web-cert': { type: 'string' },
    'web-key': { type: 'string' },
    'web-trust': { type: 'string' },
    dht: { type: 'string', default: 'off' },
    'dht-protocol': { type: 'string', default: '/ipfs/kad/1.0.0' },
    pubsub: { type: 'string', default: 'off' },
    'pubsub-policy': { type: 'string', default: 'sign' },
    'pubsub-score': { type: 'string', default: 'off' }
  }
})
if (!Object.hasOwn(KEYS, options.key)) throw new Error(`unknown key type ${options.key}`)

const scored = options['pubsub-score'] === 'on'
const { version } = JSON.parse(readFileSync(new URL('./node_modules/libp2p/package.json', import.meta.url)))
const agent = `conformance-js/${version}`
const node = await createLibp2p({
  privateKey: await generateKeyPair(KEYS[options.key]),
  addresses: { listen: options.listen },
  nodeInfo: { userAgent: agent },
  ...channels(options),
  connectionManager: {
    maxConnections: MANY, inboundConnectionThreshold: MANY, maxIncomingPendingConnections: MANY
  },
  connectionMonitor: { enabled: false },
  services: {
    identify: identify({ runOnConnectionOpen: false, maxInboundStreams: MANY }),
    identifyPush: identifyPush({ maxInboundStreams: MANY }),
    ping: ping({ maxInboundStreams: MANY, timeout: COMMAND_TIMEOUT }),
    ...dhtServices(options.dht, options['dht-protocol']),
    ...pubsubServices(options.pubsub, options['pubsub-policy'], scored)
  },
  start: false
})

Object.assign(commands, dhtCommands(node), pubsubCommands(node, pattern, scored))

// Identify runs on every new connection from here, so that the command can wait for its end.
const identifying = new WeakMap() // connection -> promise
const identified = new WeakMap() // connection -> result
node.addEventListener('connection:open', ({ detail: connection }) => {
  const done = node.services.identify.identify(connection)
  done.catch(() => {})
  identifying.set(connection, done)
})
node.addEventListener('peer:identify', ({ detail: result }) => {
  const old = identified.get(result.connection) // a push may repeat only what changed
  result.observedAddr ??= old?.observedAddr
  result.signedPeerRecord ??= old?.signedPeerRecord
  identified.set(result.connection, result)
})

for (const [protocol, handler] of Object.entries(handlers)) {
  await node.handle(protocol, (stream, connection) => {
    handler(stream, connection).catch(error => stream.abort(error))
  }, { maxInboundStreams: MANY, maxOutboundStreams: MANY })
}
await node.start()
emit({
  event: 'ready',
  peer: node.peerId.toString(),
  addresses: node.getMultiaddrs().map(String),
  agent,
  implementation: `js-libp2p ${version}`
})

for await (const line of createInterface({ input: process.stdin })) {
  let command
  try {
    command = Object(JSON.parse(line))
  } catch (error) {
    emit({ id: null, ok: false, error: error.message })
    continue
  }
  const done = run(command)
  if (command.cmd === 'stop') {
    await done
    break
  }
}
process.exit(0)
