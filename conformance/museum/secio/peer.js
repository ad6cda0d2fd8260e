'use strict'
// One secio connection over TCP, without multistream-select; whatever comes is sent back.
//
//   node peer.js listen KEYTYPE EXCHANGES CIPHERS HASHES FIRST                 prints {"port", "id"}
//   node peer.js dial PORT KEYTYPE EXCHANGES CIPHERS HASHES FIRST [EXPECTED]   prints {"id"}
//
// After the handshake it prints {"remote"}, at the end {"echoed"} or {"error"}. The lists are what
// it offers, separated by commas. Before it echoes, it sends FIRST zero bytes in one frame.

const net = require('net')
const secio = require('libp2p-secio')
const support = require('libp2p-secio/src/support')
const PeerId = require('peer-id')

const say = (message) => process.stdout.write(JSON.stringify(message) + '\n')

function offer (exchanges, ciphers, hashes) {
  support.exchanges = exchanges.split(',')
  support.ciphers = ciphers.split(',')
  support.hashes = hashes.split(',')
}

// secio keeps pieces that it was given: each is copied out of the socket's buffer.
function duplex (socket) {
  return {
    source: (async function * () {
      for await (const chunk of socket) yield Buffer.from(chunk)
    })(),
    sink: async (source) => {
      for await (const chunk of source) {
        const data = chunk.slice()
        if (!socket.write(data)) await new Promise((resolve) => socket.once('drain', resolve))
      }
      socket.end()
    }
  }
}

async function serve (socket, own, first, expected) {
  socket.setNoDelay(true)
  try {
    const { conn, remotePeer } = expected === undefined
      ? await secio.secureInbound(own, duplex(socket), undefined)
      : await secio.secureOutbound(own, duplex(socket), expected)
    say({ remote: remotePeer.toB58String() })
    let echoed = 0
    await conn.sink((async function * () {
      if (first) yield Buffer.alloc(first)
      for await (const chunk of conn.source) {
        echoed += chunk.length
        yield chunk
      }
      say({ echoed }) // here: the sink of this library does not wait for its source
    })())
  } catch (error) {
    say({ error: error.message })
    socket.destroy()
  }
}

async function main () {
  const [role, ...rest] = process.argv.slice(2)
  const port = role === 'dial' ? Number(rest.shift()) : 0
  const [kind, exchanges, ciphers, hashes, size, wanted] = rest
  const first = Number(size)
  const own = await PeerId.create({ keyType: kind, bits: 2048 })
  offer(exchanges, ciphers, hashes)
  if (role === 'dial') {
    say({ id: own.toB58String() })
    const socket = net.connect(port, '127.0.0.1')
    const expected = wanted ? PeerId.createFromB58String(wanted) : undefined
    socket.once('connect', () => serve(socket, own, first, expected))
  } else {
    const server = net.createServer((socket) => { server.close(); serve(socket, own, first) })
    server.listen(0, '127.0.0.1', () => say({ port: server.address().port, id: own.toB58String() }))
  }
}

process.on('unhandledRejection', (error) => { say({ error: error.message }); process.exit(1) })
main()
