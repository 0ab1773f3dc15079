import { expect, it } from 'vitest'
import { campaign } from './fuzz/campaign.ts'

/** A machine of two cores that runs other tests beside it takes two minutes, and one that is busier sends fewer; `node tools/fuzz.mjs --messages N` sends more. */
const messages = 100_000
const withinMs = 480_000

it(
  '[G-hostile-input] answers each generated message once, over every method and tool, the socket and both eras of HTTP: nothing crashes, grows, tells of its surroundings or signs more than the flood rule allows',
  { timeout: 600_000 },
  async () => {
    const seed = Math.floor(Math.random() * 2 ** 31)
    const report = await campaign({ seed, messages, withinMs })
    process.stdout.write(
      `${JSON.stringify(report, null, 2)}\n${String(report.messages)} messages; again with: node tools/fuzz.mjs --messages ${String(messages)} --seed ${String(seed)}\n`,
    )
    expect(report.breaches).toEqual([])
    expect(report.messages).toBeGreaterThanOrEqual(messages / 4)
    // Each method and way to be malformed went over each, and work was done as well as refused.
    const families = (transport: string): readonly string[] =>
      Object.keys(report.sent).flatMap((key) =>
        key.startsWith(`${transport} `) ? [key.slice(transport.length + 1)] : [],
      )
    expect(families('http')).toEqual(families('socket'))
    expect(families('session')).toEqual(families('socket'))
    expect(families('socket').length).toBe(17)
    expect(report.answers['ok']).toBeGreaterThan(0)
    expect(report.answers['invalid_arguments']).toBeGreaterThan(0)
  },
)
