import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import type { Availability } from '../../src/plan/available.ts'
import { readiness } from '../../src/web.ts'
import { edit } from '../path/world.ts'
import { initialised, openTestBroker } from '../transfer/broker.ts'

const targets = `targets:
  boxed:
    about: A target in a container
    labels: { env: sandbox }
    executor: docker
    image: registry.internal.example/secret:1
    intents: [run_script]
  far:
    about: A target of another release
    labels: { env: sandbox }
    executor: ssh
    intents: [run_script]
`

it('readiness names what is lacking for some target or for all, and nothing of where or what that is', async () => {
  const folder = initialised('http: { listen: "127.0.0.1:0" }\ndocker: { host: "unix:///run/secret-engine.sock" }\n')
  edit(join(folder, 'writ.yaml'), (text) => text.replace(/^policies:\n(?: +- .*\n)+/m, 'policies: []\n'))
  edit(join(folder, 'catalog.yaml'), (text) => text.replace('targets:\n', targets))
  const broker = await openTestBroker({ folder })
  onTestFinished(async () => await broker.stop())
  const { http } = (await broker.served.status()) as { readonly http: string }
  const answer = await fetch(`${http}/readyz`)
  expect(answer.status).toBe(200)
  expect(await answer.json()).toEqual({ ready: true, unavailable: ['policy', 'engine', 'executor'] })
  // What may be lacking beside that.
  const { parts } = broker.served
  const facts = { images: new Map(), runtimes: new Set() }
  const able = new Map([
    ['docker', { available: true, why: '', facts }],
    ['isolate', { available: true, why: '' }],
  ]) as unknown as Availability
  const ledger = { ...parts.ledger, room: () => 'low' as const }
  const seen = await readiness({ ...parts, ledger, availability: async () => await Promise.resolve(able) })
  expect(seen).toEqual({ ready: true, unavailable: ['policy', 'executor', 'image', 'disk'] })
  const gone = async (): Promise<never> => await Promise.reject(new Error('the run host is gone'))
  expect((await readiness({ ...parts, availability: gone }))['unavailable']).toEqual(['policy', 'engine', 'executor'])
}, 60_000)
