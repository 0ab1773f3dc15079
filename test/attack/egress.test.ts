import { readFileSync } from 'node:fs'
import { afterEach, describe, expect, test } from 'vitest'
import { engine } from '../servers/engine.ts'
import { openPlace } from './docker/place.ts'
import type { Place } from './docker/place.ts'

const folder = new URL('./programs/egress/', import.meta.url)
const image = 'writ/python'
const seconds = 8
/** Megabytes more than before; most of it is what V8 has not collected yet. Without a bound it is gigabytes in a minute. */
const most = 512

let place: Place | null = null
afterEach(async () => {
  await place?.close()
  place = null
})

function residentMb(pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${String(pid)}/status`, 'utf8'))?.[1]) / 1024
}

describe.each(['runc', 'runsc'] as const)('the run host of a container of %s', (runtime) => {
  test(
    'takes no more memory however much the run sends ahead of its answers, and serves it and others all the while [G-egress-bounded]',
    { timeout: 90_000 },
    async (ctx) => {
      const found = await engine({ images: [`${image}:latest`], runsc: runtime === 'runsc' })
      if ('lacking' in found) return ctx.skip(found.lacking)
      place = await openPlace(found, runtime === 'runc' ? null : runtime, image, `flood-${runtime}-${process.pid}`)
      const pid = place.host.pid
      if (pid === null) throw new Error('there is no run host')
      let before = 0
      let peak = 0
      const looking = setInterval(() => (peak = Math.max(peak, residentMb(pid))), 50)
      const name = 'E-16-flood.py'
      const { promise: begun, resolve: begin } = Promise.withResolvers<void>()
      const running = place
        .run({
          limits: { memory_mb: 256 },
          files: { [name]: readFileSync(new URL(name, folder)) },
          argv: [
            ['python3', '-c', 'print("up")'],
            ['python3', name, String(seconds)],
          ],
          // Each request is refused for its number: what is tested is what it costs until then.
          tamper(plan) {
            plan['services'] = [
              { name: 'held', about: '', url: 'http://127.0.0.1:9', credential: null, addresses: [], ca: null },
            ]
          },
          watch(text) {
            if (text.includes('up')) before = residentMb(pid)
            if (text.includes('begun')) begin()
          },
        })
        .finally(() => clearInterval(looking))
      await begun
      const other = await place.run({ files: {}, argv: [['echo', 'fine']] })
      expect([other.end.outcome, other.stdout]).toMatchObject([{ end: 'exited', reason: null }, 'fine\n'])
      const ran = await running
      expect(ran.stdout).toBe('up\nbegun\nHTTP/1.1 429\n')
      expect(ran.end.outcome).toMatchObject({ end: 'exited', reason: null, steps: [{ exit: 0 }, { exit: 0 }] })
      expect(ran.end.counts.egress.blocked).toBeGreaterThan(8)
      expect(peak - before).toBeLessThan(most)
      expect(await place.left()).toEqual([])
    },
  )
})
