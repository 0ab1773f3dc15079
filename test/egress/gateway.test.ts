import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { bytesHeld } from '../cost.ts'
import { newAuthority } from './certificate.ts'
import { type Origin, startOrigin } from './origin.ts'
import { codeOf, decision, headerOf, openRun, service, type TestRun, textOf } from './run.ts'

const token = 'hvs.CAESIJ-gateway-canary-0123'
let origin: Origin
beforeAll(async () => {
  origin = await startOrigin({ token })
})
afterAll(async () => await origin[Symbol.asyncDispose]())

const base = (): string => `http://127.0.0.1:${origin.port}`

async function using<T>(run: TestRun, body: (run: TestRun) => Promise<T>): Promise<T> {
  try {
    return await body(run)
  } finally {
    await run.gateway.close()
  }
}

describe('a request that may pass', () => {
  it('reaches the service with method, path, query, headers and body as they were, and comes back with its answer', async () => {
    await using(openRun({ services: [service('api', `${base()}/base/`)] }), async (run) => {
      const response = await run.fetch('/api/v1/echo?q=%20x&q=2', {
        method: 'POST',
        headers: [
          ['Content-Type', 'text/plain'],
          ['X-Own', 'caf\u00e9'],
          ['X-Own', '2'],
        ],
        body: 'h\u00e9llo',
      })
      expect(response.status).toBe(200)
      expect(origin.seen.at(-1)).toMatchObject({
        method: 'POST',
        url: '/base/v1/echo?q=%20x&q=2',
        body: Buffer.from('h\u00e9llo').toString('latin1'),
      })
      expect(origin.seen.at(-1)?.headers).toMatchObject({
        'content-type': 'text/plain',
        'x-own': 'caf\u00e9, 2',
        host: `127.0.0.1:${origin.port}`,
        'accept-encoding': 'identity',
        'content-length': '6',
      })
      expect(run.gateway.counts()).toEqual({ allowed: 1, blocked: 0, refusals: [] })
    })
  })

  it('is decided by policy first, which is told the service, where it is, the path, the size and the credential', async () => {
    await using(
      openRun({
        services: [service('api', base(), { credential: 't' })],
        bindings: { t: { kind: 'bearer' } },
        values: { t: token },
      }),
      async (run) => {
        await run.fetch('/api/v1/x?secret=query', { method: 'PUT', body: 'four' })
        expect(run.calls).toEqual([
          {
            service: 'api',
            host: '127.0.0.1',
            port: origin.port,
            method: 'PUT',
            path: '/v1/x',
            size: 4,
            credential: 't',
          },
        ])
      },
    )
  })

  it('comes back without cookies, connection headers and hints at other ways', async () => {
    await using(openRun({ services: [service('api', base())] }), async (run) => {
      const names = (await run.fetch('/api/echo')).headers.map(([name]) => name)
      expect(names).toContain('content-type')
      for (const name of ['set-cookie', 'connection', 'alt-svc', 'transfer-encoding', 'content-length', 'keep-alive'])
        expect(names).not.toContain(name)
    })
  })

  it('passes answers without a body', async () => {
    await using(openRun({ services: [service('api', base())] }), async (run) => {
      const response = await run.fetch('/api/x', { method: 'HEAD' })
      expect([response.status, response.body.length]).toEqual([200, 0])
    })
  })

  it('asks for a connection no more often than it must', async () => {
    await using(openRun({ services: [service('api', base())] }), async (run) => {
      const before = origin.connections
      for (let round = 0; round < 5; round += 1) expect((await run.fetch('/api/x')).status).toBe(200)
      expect(origin.connections - before).toBe(1)
    })
  })
})

describe('policy', () => {
  it.each(['deny', 'pending', 'error'] as const)(
    '[G-egress-policy] stops a request with %s: nothing is sent, and its reason is told as a code only',
    async (effect) => {
      await using(
        openRun({ services: [service('api', base())], decide: () => Promise.resolve(decision(effect, 'too_far')) }),
        async (run) => {
          const before = origin.seen.length
          const response = await run.fetch('/api/echo')
          expect([response.status, codeOf(response)]).toEqual([403, 'too_far'])
          expect(textOf(response)).not.toContain('db.internal')
          expect(origin.seen.length).toBe(before)
          expect(run.gateway.counts()).toEqual({
            allowed: 0,
            blocked: 1,
            refusals: [{ code: 'too_far', service: 'api', count: 1 }],
          })
        },
      )
    },
  )

  it('that fails is a no, and so is one whose code is no code', async () => {
    await using(
      openRun({ services: [service('api', base())], decide: () => Promise.reject(new Error('connect db.internal')) }),
      async (run) => {
        const response = await run.fetch('/api/echo')
        expect([response.status, codeOf(response)]).toEqual([403, 'policy_unavailable'])
        expect(textOf(response)).not.toContain('db.internal')
      },
    )
    await using(
      openRun({
        services: [service('api', base())],
        decide: () => Promise.resolve(decision('deny', 'x\r\ninjected: 1')),
      }),
      async (run) => {
        expect(codeOf(await run.fetch('/api/echo'))).toBe('denied')
      },
    )
  })
})

describe('what the gateway refuses', () => {
  it('is answered by a class, counted by class and service, and sent nowhere', async () => {
    await using(openRun({ services: [service('api', base())], requests: 1000 }), async (run) => {
      const before = origin.seen.length
      expect(codeOf(await run.fetch('/other/echo'))).toBe('unknown_service')
      expect(codeOf(await run.fetch('/__proto__/echo'))).toBe('bad_url')
      expect(codeOf(await run.fetch('/constructor/echo'))).toBe('unknown_service')
      expect(codeOf(await run.fetch('', { url: `${base()}/echo` }))).toBe('bad_url')
      expect(codeOf(await run.fetch('/api/../admin'))).toBe('ambiguous_path')
      expect(codeOf(await run.fetch('/api/%2e%2e/admin'))).toBe('ambiguous_path')
      expect(codeOf(await run.fetch('/api/echo', { method: 'TRACE' }))).toBe('method_not_allowed')
      expect(codeOf(await run.fetch('/api/echo', { headers: [['x', 'a\r\nb: c']] }))).toBe('bad_header')
      expect(codeOf(await run.fetch('/api/echo', { method: 'POST', body: new Uint8Array(1_048_577) }))).toBe(
        'body_too_large',
      )
      expect(origin.seen.length).toBe(before)
      expect(run.calls).toEqual([])
      const { allowed, blocked, refusals } = run.gateway.counts()
      expect([allowed, blocked]).toEqual([0, 9])
      expect(refusals).toEqual([
        { code: 'unknown_service', service: '', count: 2 },
        { code: 'bad_url', service: '', count: 2 },
        { code: 'ambiguous_path', service: 'api', count: 2 },
        { code: 'method_not_allowed', service: 'api', count: 1 },
        { code: 'bad_header', service: 'api', count: 1 },
        { code: 'body_too_large', service: 'api', count: 1 },
      ])
    })
  })

  it('includes everything beyond the requests a run may make, refused ones counted too', async () => {
    await using(openRun({ services: [service('api', base())], requests: 3 }), async (run) => {
      await run.fetch('/other/x')
      expect([(await run.fetch('/api/x')).status, (await run.fetch('/api/x')).status]).toEqual([200, 200])
      const response = await run.fetch('/api/x')
      expect([response.status, codeOf(response)]).toEqual([429, 'request_quota'])
      expect(run.gateway.counts()).toMatchObject({ allowed: 2, blocked: 2 })
    })
  })

  it('includes more than 32 requests at once', async () => {
    await using(openRun({ services: [service('api', base())] }), async (run) => {
      const codes = (await Promise.all(Array.from({ length: 40 }, () => run.fetch('/api/x')))).map(codeOf)
      expect(codes.filter((code) => code === 'too_many_at_once').length).toBe(8)
      expect(codes.filter((code) => code === null).length).toBe(32)
    })
  })
})

describe('where a service is', () => {
  it.each([
    'http://127.0.0.1:PORT',
    'http://2130706433:PORT',
    'http://0x7f000001:PORT',
    'http://0x7f.1:PORT',
    'http://0177.0.0.1:PORT',
    'http://017700000001:PORT',
    'http://127.1:PORT',
    'http://127.0.1:PORT',
    'http://127.0.0.1.:PORT',
    'http://\u2460\u2461\u2466.0.0.1:PORT',
    'http://[::ffff:127.0.0.1]:PORT',
    'http://[::ffff:7f00:1]:PORT',
    'http://0:PORT',
    'http://0.0.0.0:PORT',
    'http://[::]:PORT',
    'http://[::1]:PORT',
    'http://LOCALHOST:PORT',
    'http://localhost.:PORT',
    'http://%31%32%37.0.0.1:PORT',
  ])('[G-egress-address] is not this machine in any spelling unless the service lists it: %s', async (url) => {
    await using(
      openRun({ services: [service('api', url.replace('PORT', String(origin.port)), { addresses: [] })] }),
      async (run) => {
        const before = origin.connections
        const response = await run.fetch('/api/x')
        expect(codeOf(response)).toBe('address_refused')
        expect(textOf(response)).not.toMatch(/127|localhost|::/)
        expect(origin.connections).toBe(before)
      },
    )
  })

  it('is judged by every address a name has: only one that is permitted is dialled', async () => {
    const asked: string[] = []
    const options = (addresses: readonly string[]): Parameters<typeof openRun>[0] => ({
      services: [service('api', `http://service.example:${origin.port}`, { addresses: ['127.0.0.1/32'] })],
      resolve: (name) => {
        asked.push(name)
        return Promise.resolve(addresses)
      },
    })
    await using(
      openRun(options(['10.0.0.1', '169.254.169.254', '::1', '64:ff9b::a00:1', '127.0.0.1'])),
      async (run) => {
        expect((await run.fetch('/api/x')).status).toBe(200)
        expect((await run.fetch('/api/x', { method: 'POST' })).status).toBe(200)
        expect(origin.seen.at(-1)?.headers.host).toBe(`service.example:${origin.port}`)
      },
    )
    expect(asked).toEqual(['service.example'])
    await using(openRun(options(['10.0.0.1', '169.254.169.254', '127.0.0.2', 'garbage'])), async (run) =>
      expect(codeOf(await run.fetch('/api/x'))).toBe('address_refused'),
    )
    await using(openRun(options([])), async (run) =>
      expect(codeOf(await run.fetch('/api/x'))).toBe('upstream_unresolved'),
    )
  })

  it('[G-egress-pinned] is dialled at the address that was checked, though the name resolves to another the next time', async () => {
    let asked = 0
    await using(
      openRun({
        services: [service('api', `http://rebind.example:${origin.port}`, { addresses: ['127.0.0.1/32'] })],
        resolve: () => {
          asked += 1
          return Promise.resolve([asked === 1 ? '127.0.0.1' : '169.254.169.254'])
        },
      }),
      async (run) => {
        expect((await run.fetch('/api/x')).status).toBe(200)
        expect(asked).toBe(1)
      },
    )
  })

  it('is told nobody when it cannot be found or reached', async () => {
    await using(
      openRun({
        services: [service('api', 'http://service.example:80')],
        resolve: () => Promise.reject(new Error('getaddrinfo ENOTFOUND service.example')),
      }),
      async (run) => {
        const response = await run.fetch('/api/x')
        expect([response.status, codeOf(response)]).toEqual([502, 'upstream_unresolved'])
        expect(textOf(response)).not.toContain('service.example')
      },
    )
    const closed = createServer()
    await new Promise<void>((done) => {
      closed.listen(0, '127.0.0.1', done)
    })
    const { port } = closed.address() as AddressInfo
    await new Promise<void>((done) => {
      closed.close(() => done())
    })
    await using(openRun({ services: [service('api', `http://127.0.0.1:${port}`)] }), async (run) => {
      const response = await run.fetch('/api/x')
      expect([response.status, codeOf(response)]).toEqual([502, 'upstream_unreachable'])
      expect(JSON.stringify(response.headers) + textOf(response)).not.toMatch(/127\.0|ECONN|\d{4,}/)
      expect(run.gateway.counts()).toEqual({ allowed: 1, blocked: 0, refusals: [] })
    })
  })
})

describe('an answer', () => {
  it.each([
    ['/api/redirect?to=http://169.254.169.254/latest', 'http://169.254.169.254/latest'],
    ['/api/redirect?to=https://evil.example/', 'https://evil.example/'],
    ['/api/redirect?to=/relative', '/relative'],
  ])('[G-egress-redirect] that redirects is handed back and not followed: %s', async (path, location) => {
    await using(
      openRun({
        services: [service('api', base(), { credential: 't' })],
        bindings: { t: { kind: 'header', header: 'X-Api-Key', prefix: '' } },
        values: { t: token },
      }),
      async (run) => {
        const before = origin.seen.length
        const response = await run.fetch(path)
        expect([response.status, headerOf(response, 'location')]).toEqual([302, location])
        expect(origin.seen.length).toBe(before + 1)
      },
    )
  })

  it('that redirects within the service names the gateway, not the host', async () => {
    await using(openRun({ services: [service('api', `${base()}/base`)] }), async (run) => {
      const go = async (to: string): Promise<string | undefined> =>
        headerOf(await run.fetch(`/api/redirect?to=${encodeURIComponent(to)}`), 'location')
      expect(await go(`${base()}/base/next?x=1#f`)).toBe('http://127.0.0.1:3128/api/next?x=1#f')
      expect(await go(`${base()}/other`)).toBe(`${base()}/other`)
    })
  })

  it('is at most 8 MiB, also when it comes packed', async () => {
    await using(openRun({ services: [service('api', base())] }), async (run) => {
      for (const path of ['/api/flood', '/api/bomb']) {
        const response = await run.fetch(path)
        expect([response.status, codeOf(response)]).toEqual([502, 'response_too_large'])
      }
      expect(run.gateway.counts()).toEqual({
        allowed: 0,
        blocked: 2,
        refusals: [{ code: 'response_too_large', service: 'api', count: 2 }],
      })
    })
  })

  it('of many requests together takes bounded memory', async () => {
    await using(openRun({ services: [service('api', base())] }), async (run) => {
      const before = bytesHeld()
      let most = 0
      const bound = 160 << 20
      const timer = setInterval(() => {
        const seen = process.memoryUsage().arrayBuffers - before
        // Past the bound it may be what nobody has collected yet.
        most = Math.max(most, seen < bound ? seen : bytesHeld() - before)
      }, 5)
      const codes = (await Promise.all(Array.from({ length: 32 }, () => run.fetch('/api/flood')))).map(codeOf)
      clearInterval(timer)
      for (const code of codes) expect(['response_too_large', 'too_many_at_once']).toContain(code)
      expect(most).toBeLessThan(bound)
    })
  })

  it.each([
    ['/api/close', 'upstream_closed'],
    ['/api/reset', 'upstream_closed'],
    ['/api/garbage', 'upstream_protocol'],
    ['/api/headers-flood', 'upstream_protocol'],
    ['/api/upgrade', 'upstream_protocol'],
    ['/api/odd-status', 'upstream_protocol'],
  ])('that is none (%s) is told as a class', async (path, code) => {
    await using(openRun({ services: [service('api', base())] }), async (run) => {
      const response = await run.fetch(path)
      expect([response.status, codeOf(response)]).toEqual([502, code])
      expect(textOf(response)).not.toMatch(/127\.0|ECONN|HPE_|socket/)
      expect(run.gateway.counts()).toMatchObject({ allowed: 1, blocked: 0 })
    })
  })

  it('is waited for only so long: to be reached, and for the next bytes', async () => {
    const silent = createServer((socket) => socket.on('error', () => {}).resume())
    await new Promise<void>((done) => {
      silent.listen(0, '127.0.0.1', done)
    })
    const { port } = silent.address() as AddressInfo
    await using(
      openRun({
        services: [service('tls', `https://127.0.0.1:${port}`), service('dns', 'https://slow.example')],
        patience: { connectMs: 100, idleMs: 60_000, headersMs: 60_000 },
        resolve: () => new Promise(() => {}),
      }),
      async (run) => {
        expect(codeOf(await run.fetch('/tls/x'))).toBe('connect_timeout')
        expect(codeOf(await run.fetch('/dns/x'))).toBe('connect_timeout')
      },
    )
    await using(
      openRun({
        services: [service('api', base())],
        patience: { connectMs: 60_000, idleMs: 1500, headersMs: 60_000 },
      }),
      async (run) => {
        expect(codeOf(await run.fetch('/api/hang'))).toBe('upstream_timeout')
        expect((await run.fetch('/api/x')).status).toBe(200)
      },
    )
    await new Promise<void>((done) => {
      silent.close(() => done())
    })
  })

  it('does not come when the run is cancelled or the gateway closes', async () => {
    const run = openRun({ services: [service('api', base())] })
    const controller = new AbortController()
    const cancelled = run.fetch('/api/hang', { signal: controller.signal })
    setTimeout(() => controller.abort(), 30)
    expect(codeOf(await cancelled)).toBe('cancelled')
    const hanging = run.fetch('/api/hang')
    await new Promise((done) => setTimeout(done, 30))
    await run.gateway.close()
    expect(codeOf(await hanging)).toBe('cancelled')
    expect(codeOf(await run.fetch('/api/x'))).toBe('cancelled')
  })
})

describe('TLS', () => {
  const authority = newAuthority()

  it('[G-egress-tls] is checked against the certificate authority of the service and the name it is called by', async () => {
    await withServer(
      await startOrigin({ token, tls: authority.issue({ dns: ['service.example'] }) }),
      async (secure) => {
        const at = (host: string, ca: string | null): Parameters<typeof openRun>[0] => ({
          services: [service('api', `https://${host}:${secure.port}`, { ca, credential: 't' })],
          bindings: { t: { kind: 'header', header: 'X-Vault-Token', prefix: '' } },
          values: { t: token },
          resolve: () => Promise.resolve(['127.0.0.1']),
        })
        await using(openRun(at('service.example', authority.ca)), async (run) => {
          expect(textOf(await run.fetch('/api/secure'))).toBe('{"ok":true}')
          expect(secure.names).toEqual(['service.example'])
          expect(secure.seen.at(-1)?.headers.host).toBe(`service.example:${secure.port}`)
        })
        const seen = secure.seen.length
        for (const options of [
          at('other.example', authority.ca),
          at('service.example', newAuthority().ca),
          at('service.example', null),
          at('127.0.0.1', authority.ca),
        ])
          await using(openRun(options), async (run) => {
            const response = await run.fetch('/api/secure')
            expect([response.status, codeOf(response)]).toEqual([502, 'upstream_tls'])
            expect(textOf(response)).not.toMatch(/example|127\.0|certificate|altname/i)
          })
        expect(secure.seen.length).toBe(seen)
      },
    )
  })

  it('is not spoken where the service speaks none, and the other way round', async () => {
    await using(openRun({ services: [service('api', `https://127.0.0.1:${origin.port}`)] }), async (run) => {
      expect((await run.fetch('/api/x')).status).toBe(502)
    })
  })
})

async function withServer<T extends AsyncDisposable>(resource: T, body: (resource: T) => Promise<void>): Promise<void> {
  try {
    await body(resource)
  } finally {
    await resource[Symbol.asyncDispose]()
  }
}
