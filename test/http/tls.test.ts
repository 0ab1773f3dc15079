import { X509Certificate } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { Agent, request } from 'node:https'
import { connect } from 'node:tls'
import { describe, expect, it } from 'vitest'
import { newAuthority } from '../egress/certificate.ts'
import { folder } from '../ledger/folder.ts'
import { until } from '../wait.ts'
import { openEdge } from './edge.ts'

const authority = newAuthority()

function files(): {
  readonly certificate: string
  readonly key: string
  write(what: { cert?: string; key?: string }): void
} {
  const where = folder()
  const [certificate, key] = [`${where}/tls.crt`, `${where}/tls.key`]
  return {
    certificate,
    key,
    write(what) {
      if (what.cert !== undefined) writeFileSync(certificate, what.cert)
      if (what.key !== undefined) writeFileSync(key, what.key)
    },
  }
}

/** The fingerprint of the certificate a new connection is shown. */
async function shown(url: string): Promise<string> {
  const { port } = new URL(url)
  return await new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port: Number(port), ca: authority.ca }, () => {
      resolve(socket.getPeerX509Certificate()?.fingerprint256 ?? '')
      socket.destroy()
    })
    socket.once('error', reject)
  })
}

async function ask(url: string, agent: Agent): Promise<number> {
  return await new Promise((resolve, reject) => {
    const asked = request(`${url}/healthz`, { agent, ca: authority.ca }, (answer) => {
      answer.resume()
      answer.once('end', () => resolve(answer.statusCode ?? 0))
    })
    asked.once('error', reject).end()
  })
}

describe('a certificate', () => {
  it('[G-tls-reload] that replaces another is in force for new connections, and no connection is dropped', async () => {
    const tls = files()
    const [first, second] = [authority.issue({ ip: ['127.0.0.1'] }), authority.issue({ ip: ['127.0.0.1'] })]
    tls.write(first)
    const edge = await openEdge({ http: { tls: { certificate: tls.certificate, key: tls.key } } })
    expect(edge.url).toMatch(/^https:/)
    const agent = new Agent({ keepAlive: true, maxSockets: 1 })
    expect(await ask(edge.url, agent)).toBe(200)
    const kept = Object.values(agent.freeSockets)[0]?.[0]
    // One after the other, as tools do: what lies there in between does not match.
    tls.write({ cert: second.cert })
    await new Promise((resolve) => setTimeout(resolve, 50))
    tls.write({ key: second.key })
    const wanted = new X509Certificate(second.cert).fingerprint256
    await until('the other is shown', async () => (await shown(edge.url)) === wanted)
    expect(await ask(edge.url, agent)).toBe(200)
    expect(Object.values(agent.freeSockets)[0]?.[0]).toBe(kept)
    agent.destroy()
  })

  it('that does not match its key is refused with which file is wrong, and the one in force stays', async () => {
    const tls = files()
    const first = authority.issue({ ip: ['127.0.0.1'] })
    tls.write(first)
    const edge = await openEdge({ http: { tls: { certificate: tls.certificate, key: tls.key } } })
    const before = await shown(edge.url)
    tls.write({ cert: authority.issue({ ip: ['127.0.0.1'] }).cert })
    const refused = (): readonly string[] =>
      edge.log.filter((line) => Number(line['level']) >= 50).map((line) => JSON.stringify(line))
    await until('it is refused', () => refused().length > 0)
    expect(refused()[0]).toContain('is not the key of the certificate')
    expect(refused()[0]).toContain('the earlier one stays in force')
    expect(await shown(edge.url)).toBe(before)
    tls.write({ cert: 'nothing of the kind' })
    await until('the next is refused', () => refused().length > 1)
    expect(refused()[1]).toContain('is not a PEM certificate')
    expect(await shown(edge.url)).toBe(before)
    // Nothing of a key stands in the log.
    expect(JSON.stringify(edge.log)).not.toContain(first.key.split('\n')[1])
  })

  it('that cannot be used stops the start, and says why', async () => {
    const tls = files()
    tls.write({ cert: authority.issue({ ip: ['127.0.0.1'] }).cert, key: authority.issue({ ip: ['127.0.0.1'] }).key })
    const open = async (): Promise<unknown> =>
      await openEdge({ http: { tls: { certificate: tls.certificate, key: tls.key } } })
    await expect(open()).rejects.toThrow(`${tls.key} is not the key of the certificate in ${tls.certificate}`)
    tls.write({ cert: 'x' })
    await expect(open()).rejects.toThrow('is not a PEM certificate')
    await expect(openEdge({ http: { tls: { certificate: '/nowhere/at/all', key: tls.key } } })).rejects.toThrow(
      'cannot be read (ENOENT)',
    )
  })

  it('[G-http-one-meaning] is asked by the name the connection was opened to: another one is misdirected', async () => {
    const tls = files()
    tls.write(authority.issue({ dns: ['writ.example', 'two.example'], ip: ['127.0.0.1'] }))
    const edge = await openEdge({
      http: { tls: { certificate: tls.certificate, key: tls.key }, hosts: ['writ.example', 'two.example'] },
    })
    const { port } = new URL(edge.url)
    const status = async (servername: string, host: string): Promise<number> =>
      await new Promise((resolve, reject) => {
        const options = { port, path: '/readyz', headers: { host }, ca: authority.ca, servername, agent: false }
        const asked = request({ host: '127.0.0.1', ...options }, (answer) => {
          answer.resume()
          answer.once('end', () => resolve(answer.statusCode ?? 0))
        })
        asked.once('error', reject).end()
      })
    expect(await status('writ.example', 'writ.example')).toBe(200)
    expect(await status('writ.example', `WRIT.example:${port}`)).toBe(200)
    expect(await status('writ.example', 'two.example')).toBe(421)
    expect(await status('two.example', '127.0.0.1')).toBe(421)
    // An address is no server name (RFC 6066 §3): who connects by it names none.
    expect(await status('', '127.0.0.1')).toBe(200)
    expect(await status('', 'writ.example')).toBe(200)
  })

  it('is asked for: plain HTTP to a TLS port and TLS below 1.2 get nothing', async () => {
    const tls = files()
    tls.write(authority.issue({ ip: ['127.0.0.1'] }))
    const edge = await openEdge({ http: { tls: { certificate: tls.certificate, key: tls.key } } })
    await expect(fetch(edge.url.replace('https:', 'http:'))).rejects.toThrow('fetch failed')
    const old = new Promise((resolve) => {
      const socket = connect({
        host: '127.0.0.1',
        port: Number(new URL(edge.url).port),
        ca: authority.ca,
        minVersion: 'TLSv1',
        maxVersion: 'TLSv1.1',
      })
      socket.once('error', () => resolve('refused')).once('secureConnect', () => resolve('taken'))
    })
    expect(await old).toBe('refused')
  })
})
