// Pubsub: the router of this peer, and the commands whose names begin with pubsub_.

import { createHash } from 'node:crypto'
import { floodsub } from '@libp2p/floodsub'
import { gossipsub } from '@libp2p/gossipsub'

const MAX_RPC = 4 * 1024 * 1024
const MAX_UNSENT = 16 * 1024 * 1024
const POLICIES = { sign: 'StrictSign', nosign: 'StrictNoSign' }

const sha256 = data => createHash('sha256').update(data)
const hex = data => sha256(data).digest('hex')

/** The peer id of the author, and its number in 8 bytes; or the hash of the data. */
function messageId (message) {
  if (message.type === 'unsigned') return new Uint8Array(sha256(message.data).digest())
  const number = Buffer.alloc(8)
  number.writeBigUInt64BE(message.sequenceNumber)
  return new Uint8Array(Buffer.concat([message.from.toMultihash().bytes, number]))
}

/** The service, or nothing when the router is "off". */
export function pubsubServices (router, policy, scored) {
  if (router === 'off') return {}
  const globalSignaturePolicy = POLICIES[policy]
  if (globalSignaturePolicy == null) throw new Error(`unknown --pubsub-policy ${policy}`)
  if (router === 'floodsub') return { pubsub: floodsub({ globalSignaturePolicy }) }
  if (router !== 'gossipsub') throw new Error(`unknown router ${router} of --pubsub`)
  return {
    pubsub: gossipsub({
      globalSignaturePolicy,
      msgIdFn: messageId,
      doPX: true,
      allowPublishToZeroTopicPeers: true,
      maxInboundDataLength: MAX_RPC,
      maxOutboundBufferSize: MAX_UNSENT,
      scoreParams: {
        topicScoreCap: 0,
        appSpecificWeight: 0,
        IPColocationFactorWeight: 0,
        behaviourPenaltyWeight: scored ? -10 : 0,
        behaviourPenaltyThreshold: 2,
        behaviourPenaltyDecay: 0.9,
        decayInterval: 1000,
        decayToZero: 0.01
      },
      scoreThresholds: {
        gossipThreshold: -10,
        publishThreshold: -50,
        graylistThreshold: -80,
        acceptPXThreshold: 0,
        opportunisticGraftThreshold: 0
      }
    })
  }
}

const TOPIC_SCORE = {
  topicWeight: 1,
  // What has the weight 0 is counted all the same.
  timeInMeshWeight: 0,
  timeInMeshQuantum: 1000,
  timeInMeshCap: 1,
  firstMessageDeliveriesWeight: 0,
  firstMessageDeliveriesDecay: 0.5,
  firstMessageDeliveriesCap: 1,
  meshMessageDeliveriesWeight: 0,
  meshMessageDeliveriesDecay: 0.5,
  meshMessageDeliveriesCap: 1,
  meshMessageDeliveriesThreshold: 1,
  meshMessageDeliveriesWindow: 10,
  meshMessageDeliveriesActivation: 5000,
  meshFailurePenaltyWeight: 0,
  meshFailurePenaltyDecay: 0.5,
  invalidMessageDeliveriesWeight: -10,
  invalidMessageDeliveriesDecay: 0.9
}

/** The commands of a node that was made with pubsubServices(). */
export function pubsubCommands (node, pattern, scored) {
  const pubsub = node.services.pubsub
  if (pubsub == null) return {}
  const received = new Map() // topic -> author and hash -> what came

  pubsub.addEventListener('message', ({ detail: message }) => {
    const from = message.from?.toString() ?? null
    if (from === node.peerId.toString()) return
    const digest = hex(message.data)
    const inbox = received.get(message.topic)
    const key = `${from} ${digest}`
    const entry = inbox?.get(key) ?? { from, size: message.data.length, sha256: digest, count: 0 }
    entry.count++
    inbox?.set(key, entry)
  })

  return {
    pubsub_subscribe: async c => {
      // The library takes its parameters at the start only; they count for a topic that is there.
      const params = pubsub.score?.params
      if (scored && params != null) params.topics[c.topic] = TOPIC_SCORE
      received.set(c.topic, new Map())
      pubsub.subscribe(c.topic)
    },
    pubsub_unsubscribe: async c => pubsub.unsubscribe(c.topic),
    pubsub_publish: async c => {
      const data = c.seed == null
        ? Buffer.from(c.data, 'hex')
        : Buffer.concat([Buffer.from(c.seed), pattern(Math.max(c.size - Buffer.byteLength(c.seed), 0))])
      await pubsub.publish(c.topic, new Uint8Array(data))
      return { sha256: hex(data) }
    },
    pubsub_received: async c => {
      const inbox = received.get(c.topic)
      if (inbox == null) throw new Error('not subscribed to that topic')
      return { messages: [...inbox.values()] }
    },
    pubsub_peers: async c => ({ peers: pubsub.getSubscribers(c.topic).map(String) }),
    pubsub_mesh: async c => ({ peers: pubsub.getMeshPeers?.(c.topic) ?? [] }),
    pubsub_score: async c => ({ score: pubsub.score?.score(c.peer) ?? 0 })
  }
}
