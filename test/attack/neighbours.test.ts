import { createSocket } from 'node:dgram'
import { readFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { networkInterfaces } from 'node:os'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { TestContext } from 'vitest'
import { engine } from '../servers/engine.ts'
import { openPlace } from './docker/place.ts'
import type { Place } from './docker/place.ts'

/*
 * What is next to a container: other containers (E-15), and the machine's own services (E-18, which a network that engines
 * call internal does not keep apart).
 */

const program = (name: string): Record<string, Buffer> => ({
  [name]: readFileSync(new URL(`./programs/neighbours/${name}`, import.meta.url)),
})

/** Listens to both kinds on all addresses, and counts what comes. */
async function openHostService(): Promise<{ port: number; came: () => number; close: () => Promise<void> }> {
  let came = 0
  const server = createServer((socket) => {
    came++
    socket.destroy()
  })
  await new Promise<void>((resolve) => void server.listen(0, '::', resolve))
  const { port } = server.address() as AddressInfo
  const datagrams = createSocket({ type: 'udp6', ipv6Only: false })
  datagrams.on('message', () => came++)
  await new Promise<void>((resolve) => datagrams.bind(port, '::', resolve))
  return {
    port,
    came: () => came,
    async close() {
      datagrams.close()
      await new Promise<void>((resolve) => void server.close(() => resolve()))
    },
  }
}

describe.each(['runc', 'runsc'] as const)('a container of %s', (runtime) => {
  let lacking: string | null = null
  let place: Place | null = null
  beforeAll(async () => {
    const found = await engine({ images: ['writ/python:latest'], runsc: runtime === 'runsc' })
    if ('lacking' in found) lacking = found.lacking
    else {
      const owner = `next-${runtime}-${process.pid}`
      place = await openPlace(found, runtime === 'runc' ? null : runtime, 'writ/python', owner)
    }
  }, 60_000)
  afterAll(async () => await place?.close())

  function real(ctx: TestContext): Place {
    if (lacking !== null) return ctx.skip(lacking)
    if (place === null) throw new Error('there is no run host')
    return place
  }

  test(
    'has nothing of the one beside it: no socket, port, file, memory, queue or process [G-container-holds]',
    { timeout: 90_000 },
    async (ctx) => {
      const here = real(ctx)
      let end: () => void = () => undefined
      const ready = Promise.withResolvers<void>()
      const beside = here.run({
        files: program('E-15-leave.py'),
        argv: [['python3', 'E-15-leave.py']],
        limits: { wall_s: 80 },
        watch(text, cancel) {
          end = cancel
          if (text.includes('ready')) ready.resolve()
        },
      })
      void beside.then(() => ready.resolve())
      await ready.promise
      const ran = await here.run({ files: program('E-15-reach.py'), argv: [['python3', 'E-15-reach.py']] })
      expect(await here.running()).toHaveLength(1)
      end()
      const other = await beside
      expect({ ...ran.end.outcome, steps: null, stdout: ran.stdout, stderr: ran.stderr }).toEqual({
        end: 'exited',
        reason: null,
        steps: null,
        stdout: [
          'abstract socket 1 False',
          'abstract socket 2 False',
          'port on loopback False',
          '/work False False',
          '/tmp False False',
          '/out False False',
          '/dev/shm False False',
          'shared memory False',
          'message queue False',
          'processes []',
          'signalled []',
          '',
        ].join('\n'),
        stderr: '',
      })
      expect({ end: other.end.outcome.end, stdout: other.stdout }).toEqual({ end: 'stopped', stdout: 'ready\n' })
      expect(await here.left()).toEqual([])
    },
  )

  test(
    'reaches no service of the machine, though it listens on every address [G-egress-closed]',
    { timeout: 90_000 },
    async (ctx) => {
      const here = real(ctx)
      const service = await openHostService()
      const own = Object.values(networkInterfaces()).flatMap((list) => (list ?? []).map(({ address }) => address))
      const given = [
        '0.0.0.0',
        '172.17.0.1',
        '172.18.0.1',
        '192.168.65.2',
        '10.0.2.2',
        '192.168.122.1',
        '::',
        'fe80::1',
      ]
      try {
        await new Promise<void>((resolve, reject) => {
          const socket = connect(service.port, '127.0.0.1', resolve).on('error', reject)
          socket.once('close', () => socket.destroy())
        })
        await expect.poll(service.came).toBe(1)
        const ran = await here.run({
          files: program('E-18-host.py'),
          argv: [['python3', 'E-18-host.py', String(service.port), ...new Set([...own, ...given])]],
        })
        expect(ran.end.outcome).toMatchObject({ end: 'exited', reason: null, steps: [{ exit: 0 }] })
        expect(ran.stdout).toBe('tried True through []\n')
        expect(service.came()).toBe(1)
      } finally {
        await service.close()
      }
    },
  )
})
