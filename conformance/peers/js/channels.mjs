// What lies between a socket and a stream, chosen by the options.

import { readFileSync } from 'node:fs'
import tls from 'node:tls'
import { quic } from '@chainsafe/libp2p-quic'
import { mplex } from '@libp2p/mplex'
import { noise } from '@libp2p/noise'
import { plaintext } from '@libp2p/plaintext'
import { preSharedKey } from '@libp2p/pnet'
import { tcp } from '@libp2p/tcp'
import { tls as tlsSecurity } from '@libp2p/tls'
import { webSockets } from '@libp2p/websockets'
import { yamux } from '@libp2p/yamux'

const MANY = 100_000
const SECURITY = {
  noise: () => noise(),
  tls: () => tlsSecurity(),
  plaintext: () => plaintext()
}
const MUXERS = {
  yamux: () => yamux({
    maxInboundStreams: MANY,
    maxOutboundStreams: MANY,
    maxEarlyStreams: MANY,
    // A paused stream is reset beyond this, so it must hold the largest window (16 MiB by default).
    streamOptions: { maxReadBufferLength: 32 * 1024 * 1024 }
  }),
  // The library drops connections that open more than five streams in a second.
  mplex: () => mplex({ maxInboundStreams: MANY, maxOutboundStreams: MANY, disconnectThreshold: Infinity })
}
const SHORT = {
  '/noise': 'noise',
  '/tls/1.0.0': 'tls',
  '/plaintext/2.0.0': 'plaintext',
  '/yamux/1.0.0': 'yamux',
  '/mplex/6.7.0': 'mplex'
}

/** What of these the peer offers, in the order of the names. */
function chosen (known, names) {
  return names.split(',').map(name => {
    if (!Object.hasOwn(known, name)) throw new Error(`cannot do ${name}`)
    return known[name]()
  })
}

/** The part of the library's configuration that is about connections. */
export function channels (options) {
  const file = name => options[name] == null ? undefined : readFileSync(options[name])
  const trusted = file('web-trust')
  if (trusted != null) tls.setDefaultCACertificates([trusted.toString()])
  const web = { cert: file('web-cert'), key: file('web-key') }
  const config = {
    transports: [
      tcp({ inboundSocketInactivityTimeout: 0, outboundSocketInactivityTimeout: 0 }),
      webSockets(web.cert == null ? {} : { https: web })
    ],
    connectionEncrypters: chosen(SECURITY, options.security),
    streamMuxers: chosen(MUXERS, options.muxers)
  }
  const psk = file('psk')
  if (psk != null) config.connectionProtector = preSharedKey({ psk })
  else config.transports.push(quic()) // it would go around the private network
  return config
}

/** The name of what a connection consists of: tcp+noise+yamux, or quic-v1. */
export function channelOf (connection) {
  const names = connection.remoteAddr.getComponents().map(component => component.name)
  if (names.includes('quic-v1')) return 'quic-v1'
  let socket = 'tcp'
  if (names.includes('wss') || names.includes('tls')) socket = 'wss'
  else if (names.includes('ws')) socket = 'ws'
  return [socket, SHORT[connection.encryption], SHORT[connection.multiplexer]].join('+')
}
