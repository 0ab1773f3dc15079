import { createServer, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { EgressResponse } from '../../src/egress/egress.ts'
import { until } from '../wait.ts'
import { codeOf, openRun, service, type TestRun } from './run.ts'

const mib = 1_048_576
const token = 'hvs.CAESIJ-download-canary-0123'
/** Bytes the server has handed to its kernel for the answer under way. */
let written = 0
/** The connection of that answer. */
let answering: ServerResponse | null = null

/** Serves `mb` megabytes under a media type, slowly where nobody reads them, with the token across a border of two writes. */
const server: Server = createServer((request, response) => {
  const asked = new URL(request.url ?? '/', 'http://x').searchParams
  const left = { bytes: Number(asked.get('mb') ?? 1) * mib }
  const piece = Buffer.alloc(65_536, 'x')
  const half = Math.floor(token.length / 2)
  written = 0
  answering = response
  response.writeHead(Number(asked.get('status') ?? 200), { 'content-type': asked.get('type') ?? 'application/zip' })
  if (asked.has('secret')) {
    response.write(`before ${token.slice(0, half)}`)
    left.bytes -= 7 + half
    setTimeout(() => {
      response.write(`${token.slice(half)} after`)
      left.bytes -= token.length - half + 6
      more()
    }, 50)
  } else more()
  function more(): void {
    while (left.bytes > 0 && !response.destroyed) {
      const part = piece.subarray(0, Math.min(piece.length, left.bytes))
      left.bytes -= part.length
      written += part.length
      if (asked.has('break') && left.bytes < mib) {
        response.destroy()
        return
      }
      if (!response.write(part)) {
        response.once('drain', more)
        return
      }
    }
    response.end()
  }
})
let url = ''
beforeAll(async () => {
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
  url = `http://127.0.0.1:${String((server.address() as AddressInfo).port)}`
})
afterAll(() => {
  server.closeAllConnections()
  server.close()
})

async function using(
  options: Partial<Parameters<typeof openRun>[0]>,
  body: (run: TestRun) => Promise<void>,
): Promise<void> {
  const run = openRun({ services: [service('mirror', url, { download_mb: 24 })], ...options })
  try {
    await body(run)
  } finally {
    await run.gateway.close()
  }
}

const get = async (run: TestRun, query: string, pieces = true): Promise<EgressResponse> =>
  await run.fetch(`/mirror/file?${query}`, { pieces })

async function sizeOf(response: EgressResponse): Promise<number> {
  let size = response.body.length
  for await (const piece of response.rest ?? []) size += piece.length
  return size
}

describe('an archive', () => {
  it('larger than any answer that is held whole comes in pieces, where its service may send so much', async () => {
    await using({}, async (run) => {
      const response = await get(run, 'mb=20')
      expect(response).toMatchObject({ status: 200, body: { length: 0 } })
      expect(await sizeOf(response)).toBe(20 * mib)
      expect(run.gateway.counts()).toEqual({ allowed: 1, blocked: 0, refusals: [] })
    })
  })

  it('is read from the service no faster than the sandbox reads it, and waited for while it does not', async () => {
    await using({ patience: { connectMs: 5000, idleMs: 200, headersMs: 5000 } }, async (run) => {
      const pieces = (await get(run, 'mb=24')).rest?.[Symbol.asyncIterator]()
      await pieces?.next()
      // Long enough for the idle limit to pass several times, and for 24 MB to come if anybody took them.
      await new Promise((resolve) => setTimeout(resolve, 1500))
      expect(written).toBeLessThan(16 * mib)
      let rest = 0
      for (let next = await pieces?.next(); next?.done === false; next = await pieces?.next()) rest += next.value.length
      expect(rest).toBeGreaterThan(23 * mib)
    })
  })

  it('that is larger than its service may send breaks off, is no whole answer, and counts as blocked', async () => {
    await using({}, async (run) => {
      const response = await get(run, 'mb=25')
      await expect(sizeOf(response)).rejects.toMatchObject({ code: 'response_too_large' })
      expect(run.gateway.counts()).toEqual({
        allowed: 0,
        blocked: 1,
        refusals: [{ code: 'response_too_large', service: 'mirror', count: 1 }],
      })
    })
  })

  it('that the service breaks off is no whole answer', async () => {
    await using({}, async (run) => {
      await expect(sizeOf(await get(run, 'mb=12&break'))).rejects.toMatchObject({ code: 'upstream_closed' })
    })
  })

  it('has the placeholder in place of a value, across the border of two pieces too [G-redacted]', async () => {
    await using(
      {
        services: [service('mirror', url, { download_mb: 24, credential: 'key' })],
        bindings: { key: { kind: 'bearer' } },
        values: { key: token },
      },
      async (run) => {
        const parts: Uint8Array[] = []
        for await (const piece of (await get(run, 'mb=9&secret')).rest ?? []) parts.push(piece)
        const text = Buffer.concat(parts).toString('latin1')
        expect(text).not.toContain(token)
        expect(text.slice(0, 80)).toContain(`before ${String(run.placeholders['key'])} after`)
        expect(text.length).toBeGreaterThan(9 * mib - 200)
      },
    )
  })

  it('that says it has no content is a whole answer, so however many of them take no place of the requests after them', async () => {
    await using({}, async (run) => {
      for (let at = 0; at < 33; at++) {
        const response = await get(run, 'mb=0&status=204')
        expect([response.status, response.rest]).toEqual([204, undefined])
      }
      expect(run.gateway.counts()).toEqual({ allowed: 33, blocked: 0, refusals: [] })
    })
  })

  it('ends with its run, whether or not anybody reads it', async () => {
    await using({}, async (run) => {
      const read = await get(run, 'mb=24')
      const pieces = read.rest?.[Symbol.asyncIterator]()
      await pieces?.next()
      await get(run, 'mb=24')
      const last = answering
      await run.gateway.close()
      await until('the connection is closed', () => last?.destroyed)
      await expect(
        (async () => {
          for (let next = await pieces?.next(); next?.done === false; next = await pieces?.next());
        })(),
      ).rejects.toMatchObject({ code: 'cancelled' })
    })
  })
})

describe('an answer of more than 8 MiB is refused', () => {
  it.each([
    ['to a sandbox that takes no pieces', 'mb=9', false, 24],
    ['of a service that is no package mirror and names no number', 'mb=9', true, null],
    ['that could hold a token in clear', 'mb=9&type=application/json', true, 24],
    ['of text', 'mb=9&type=text/html', true, 24],
  ] as const)('%s', async (_what, query, pieces, most) => {
    const services = [service('mirror', url, most === null ? {} : { download_mb: most })]
    await using({ services }, async (run) => {
      const response = await get(run, query, pieces)
      expect(codeOf(response)).toBe('response_too_large')
      expect(response.rest).toBeUndefined()
    })
  })
})
