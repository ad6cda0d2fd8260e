// Fully meshed nodes of js-libp2p in one process, under the commands of ../pubsub_mesh.py.
//
// Its gossipsub with its own defaults; signed messages.

import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { gossipsub } from '@libp2p/gossipsub'
import { identify } from '@libp2p/identify'
import { noise } from '@libp2p/noise'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { createLibp2p } from 'libp2p'

const TOPIC = 'benchmark'
const PATIENCE = 30_000
const { values } = parseArgs({ options: { nodes: { type: 'string', default: '10' } }, strict: false })
const emit = line => process.stdout.write(JSON.stringify(line) + '\n')
const cpuSeconds = () => { const used = process.cpuUsage(); return (used.user + used.system) / 1e6 }

let delivered = 0
let target = Infinity
let reached = () => {}

const nodes = []
for (let place = 0; place < Number(values.nodes); place++) {
  const node = await createLibp2p({
    addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    connectionManager: { inboundConnectionThreshold: Infinity }, // it is 5 per second and address
    services: { identify: identify(), pubsub: gossipsub() }
  })
  node.services.pubsub.addEventListener('message', ({ detail }) => {
    if (detail.from == null || detail.from.equals(node.peerId)) return
    delivered++
    if (delivered >= target) reached()
  })
  node.services.pubsub.subscribe(TOPIC)
  nodes.push(node)
}

async function waitFor (count) {
  target = count
  if (delivered >= count) return true
  await Promise.race([new Promise(resolve => { reached = resolve }), sleep(PATIENCE)])
  return delivered >= count
}

const commands = {
  async mesh () {
    for (const [place, node] of nodes.entries()) {
      for (const other of nodes.slice(0, place)) await node.dial(other.getMultiaddrs()[0])
    }
    const end = Date.now() + PATIENCE
    while (!nodes.every(node => node.services.pubsub.getSubscribers(TOPIC).length >= nodes.length - 1)) {
      if (Date.now() > end) throw new Error('they do not find each other')
      await sleep(100)
    }
    await sleep(2500)
    const sizes = nodes.map(node => node.services.pubsub.getMeshPeers(TOPIC).length)
    return { mesh: sizes.reduce((a, b) => a + b) / sizes.length }
  },

  async rounds ({ count, burst, size }) {
    delivered = 0
    const started = performance.now()
    const before = cpuSeconds()
    let expected = 0
    for (let round = 0; round < count; round++) {
      for (let one = 0; one < burst; one++) {
        for (const [place, node] of nodes.entries()) {
          const data = new Uint8Array(size)
          new DataView(data.buffer).setBigUint64(0, BigInt(place))
          new DataView(data.buffer).setBigUint64(8, process.hrtime.bigint())
          await node.services.pubsub.publish(TOPIC, data)
        }
      }
      expected += burst * nodes.length * (nodes.length - 1)
      if (!await waitFor(expected)) break
    }
    return { seconds: (performance.now() - started) / 1000, cpu: cpuSeconds() - before, delivered, expected }
  },

  async cpu () {
    return { seconds: cpuSeconds(), rss: process.memoryUsage().rss }
  }
}

const installed = name => JSON.parse(readFileSync(new URL(`./node_modules/${name}/package.json`, import.meta.url))).version
emit({
  event: 'ready',
  peer: nodes.at(-1).peerId.toString(),
  addresses: nodes.at(-1).getMultiaddrs().map(String),
  agent: 'js-libp2p',
  implementation: `js-libp2p v${installed('libp2p')}, gossipsub v${installed('@libp2p/gossipsub')} on node ${process.version}`
})
for await (const line of createInterface({ input: process.stdin })) {
  const { id, cmd, ...request } = JSON.parse(line)
  if (cmd === 'stop') break
  try {
    emit({ id, ok: true, ...await commands[cmd](request) })
  } catch (error) {
    emit({ id, ok: false, error: `${error.name}: ${error.message}` })
  }
}
process.exit(0)
