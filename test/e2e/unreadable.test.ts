import { describe, expect, it } from 'vitest'
import type { JsonObject } from '../../src/digest.ts'
import { client2 } from './clients/client2.ts'
import type { Driver } from './clients/driver.ts'
import { python, pythonMissing } from './clients/python.ts'
import { sdk1 } from './clients/sdk1.ts'
import { useWorld } from './world.ts'

const world = useWorld()

const drivers: readonly (readonly [string, () => Driver])[] = [
  ['@modelcontextprotocol/client 2, auto', () => client2('auto')],
  ['@modelcontextprotocol/client 2, its default', () => client2('legacy')],
  ['@modelcontextprotocol/sdk 1', () => sdk1()],
  ['mcp for Python', () => python('auto')],
]

/** What a client of good faith may send without knowing better. */
const unreadable: readonly (readonly [string, JsonObject, RegExp])[] = [
  ['more than a message holds', { goal: 'g'.repeat(5 * 1024 * 1024) }, /at most 4194304 bytes.*upload_artifact/],
  ['text cut in the middle of a character', { goal: 'half of \ud83d' }, /surrogate/],
  [
    'inputs as deep as a well',
    { inputs: JSON.parse(`${'{"a":'.repeat(100)}1${'}'.repeat(100)}`) as JsonObject },
    /deeper/,
  ],
  ['a number beyond 2^53', { inputs: { big: 2 ** 60 } }, /2\^53/],
]

describe('a call that cannot be read', () => {
  for (const [name, make] of drivers)
    it(`is told to ${name} at once, with what is wrong, and the next call is served [G-hostile-input]`, async (context) => {
      const missing = name.includes('Python') ? pythonMissing() : null
      if (missing !== null) context.skip(missing)
      const client = await world.client(make())
      for (const [what, args, says] of unreadable) {
        // Python refuses to send what is no Unicode.
        if (name.includes('Python') && what.includes('character')) continue
        const task = { project_name: 'p', goal: 'g', target_ref: 'sandbox', execution_intent: 'run_script', ...args }
        const before = performance.now()
        await expect(client.call('submit_task', task)).rejects.toThrow(says)
        expect(performance.now() - before).toBeLessThan(30_000)
      }
      expect((await client.call('get_status', {})).isError).toBe(false)
    }, 120_000)
})
