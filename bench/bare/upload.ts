import { createHash } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'

/** The least a server of uploads can be: `node:http` piped to a file that is synced, with the SHA-256 of what passed. */
const file = process.argv[2] ?? ''
const server = createServer((request, response) => {
  const hash = createHash('sha256')
  const hashing = new Transform({
    transform(piece: Buffer, _encoding, done) {
      hash.update(piece)
      done(null, piece)
    },
  })
  pipeline(request, hashing, createWriteStream(file, { flush: true })).then(
    () => response.writeHead(201).end(hash.digest('hex')),
    () => response.destroy(),
  )
})
server.requestTimeout = 0
server.listen(0, '127.0.0.1', () => console.log((server.address() as AddressInfo).port))
