// Kademlia: how this peer joins a network, and the commands whose names begin with dht_.

import { setTimeout as sleep } from 'node:timers/promises'
import { kadDHT, passthroughMapper } from '@libp2p/kad-dht'
import { peerIdFromString } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'
import { ipnsSelector } from 'ipns/selector'
import { ipnsValidator } from 'ipns/validator'
import { CID } from 'multiformats/cid'
import * as Digest from 'multiformats/hashes/digest'

const RAW = 0x55
// How long dht_bootstrap waits until a peer is in the table.
const BOOTSTRAP_PATIENCE = 10_000

const fromHex = text => Uint8Array.from(Buffer.from(text, 'hex'))
const content = c => c.cid != null ? CID.parse(c.cid) : CID.createV1(RAW, Digest.decode(fromHex(c.multihash)))

/** The service, or nothing when the mode is "off". */
export function dhtServices (mode, protocol) {
  if (mode === 'off') return {}
  if (mode !== 'server' && mode !== 'client') throw new Error(`unknown mode ${mode} of --dht`)
  const dht = kadDHT({
    protocol,
    clientMode: mode === 'client',
    peerInfoMapper: passthroughMapper, // by default addresses that are not public are dropped
    allowQueryWithZeroPeers: true,
    // pk is built in.
    validators: { ipns: ipnsValidator, example: async () => {} },
    selectors: {
      ipns: ipnsSelector,
      example: (key, values) => values.indexOf(values.toSorted(Buffer.compare).at(-1))
    }
  })
  return { dht }
}

/** The commands of a node that was made with dhtServices(). */
export function dhtCommands (node) {
  const dht = node.services.dht
  if (dht == null) return {}
  const table = () => [...dht.routingTable.kb.toIterable()].map(entry => entry.peerId.toString())

  async function drain (events) {
    for await (const event of events) void event
  }

  return {
    dht_bootstrap: async c => {
      let failure = new Error('the argument addresses is empty')
      const dialed = []
      for (const address of c.addresses) {
        try {
          const connection = await node.dial(multiaddr(address), { signal: c.signal })
          dialed.push(connection.remotePeer.toString())
        } catch (error) {
          failure = error
        }
      }
      if (dialed.length === 0) throw failure
      const end = Date.now() + BOOTSTRAP_PATIENCE
      while (!table().some(peer => dialed.includes(peer))) {
        if (Date.now() > end) throw new Error('none of these peers came into the table')
        await sleep(5)
      }
      await drain(dht.getClosestPeers(node.peerId.toMultihash().bytes, { signal: c.signal }))
      return { size: table().length }
    },
    dht_find_peer: async c => {
      for await (const event of dht.findPeer(peerIdFromString(c.peer), { signal: c.signal })) {
        if (event.name === 'FINAL_PEER') return { addresses: event.peer.multiaddrs.map(String) }
      }
      throw new Error('the peer was not found')
    },
    dht_closest: async c => {
      const peers = []
      for await (const event of dht.getClosestPeers(fromHex(c.key), { signal: c.signal })) {
        if (event.name === 'FINAL_PEER') peers.push(event.peer.id.toString())
      }
      return { peers }
    },
    dht_provide: async c => drain(dht.provide(content(c), { signal: c.signal })),
    dht_find_providers: async c => {
      const start = performance.now()
      const patience = AbortSignal.timeout(1000 * (c.timeout ?? 60))
      const signal = AbortSignal.any([c.signal, patience])
      const count = c.count ?? 1
      const peers = new Set()
      try {
        for await (const event of dht.findProviders(content(c), { signal })) {
          for (const provider of event.providers ?? []) peers.add(provider.id.toString())
          if (count > 0 && peers.size >= count) break
        }
      } catch (error) {
        if (!patience.aborted) throw error
      }
      return { peers: [...peers], seconds: (performance.now() - start) / 1000 }
    },
    dht_put: async c => drain(dht.put(fromHex(c.key), fromHex(c.value), { signal: c.signal })),
    dht_get: async c => {
      for await (const event of dht.get(fromHex(c.key), { signal: c.signal })) {
        if (event.name === 'VALUE') return { value: Buffer.from(event.value).toString('hex') }
      }
      throw new Error('no valid record was found')
    },
    dht_table: async () => ({ peers: table() }),
    dht_mode: async () => ({ mode: dht.getMode() })
  }
}
