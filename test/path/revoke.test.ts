import { afterAll, expect, it } from 'vitest'
import type { CredentialSource } from '../../src/credential/credential.ts'
import { Secret } from '../../src/credential/secret.ts'
import type { Parts } from '../../src/path/parts.ts'
import { openRunner } from '../../src/path/run.ts'
import { startExecution } from '../../src/path/start.ts'
import { until } from '../wait.ts'
import { openWorld } from './world.ts'

const world = await openWorld({
  targets: `  leased:
    about: A target with a credential
    labels: { env: sandbox }
    executor: isolate
    intents: [run_script]
    services:
      api: { url: "https://api.example", about: An interface, credential: token }
    environment:
      TOKEN: { placeholder: token }
`,
  credentials: '\ncredentials:\n  token:\n    source: { env: TOKEN }\n    inject: { header: X-Token }\n',
})
afterAll(async () => await world.broker.stop())
const { views } = world.parts.ledger

it('[G-lease-all-or-none] gives back a lease that its source did not take back at first, and records when it did', async () => {
  let refusals = 2
  const source: CredentialSource = {
    kind: 'env',
    check: () => Promise.resolve([]),
    lease: (name) =>
      Promise.resolve({
        name,
        value: Secret.ingest(name, 'a value of the test'),
        expires_at_ms: null,
        revoke: async () => {
          if (refusals-- > 0) return await Promise.reject(new Error('not now'))
        },
      }),
  }
  const parts: Parts = { ...world.parts, sources: new Map([['env', source]]) }
  const task_id = await world.task(world.broker.caller, 'leased', "console.log('ran')")
  const started = await startExecution(parts, openRunner(parts), world.broker.caller, { task_id })
  if (started.kind !== 'execution') throw new Error(JSON.stringify(started))
  await until('it has succeeded', () => views.execution(started.id)?.state === 'succeeded')
  // The result does not wait for it, and its receipt says what was known.
  const mine = (state: 'pending' | 'done'): boolean => views.leases([state]).some((row) => row.execution === started.id)
  expect(mine('pending')).toBe(true)
  await until('the lease is given back', () => mine('done'))
  expect(mine('pending')).toBe(false)
  expect(refusals).toBe(-1)
}, 30_000)
