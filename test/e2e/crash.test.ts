import { expect, it } from 'vitest'
import { campaign, moments } from './crash/campaign.ts'

/** Processes killed; `node tools/crash.mjs --kills N` does as many as wanted. */
const kills = 104

it(
  `[G-no-loss] [G-once] survives ${String(kills)} kills of broker, run host and workers at random moments of the path: nothing acknowledged is lost, nothing runs twice, nothing is left`,
  { timeout: 900_000 },
  async () => {
    const seed = Math.floor(Math.random() * 2 ** 31)
    const report = await campaign({ seed, kills })
    const told = `${JSON.stringify(report, null, 2)}\nagain with: node tools/crash.mjs --kills ${String(kills)} --seed ${String(seed)}\n`
    process.stdout.write(told)
    expect(report.breaches, told).toEqual([])
    expect(report.total).toBeGreaterThanOrEqual(kills)
    // A campaign in which every run was lost, or none was, would have shown nothing.
    for (const end of ['succeeded', 'unknown']) expect(report.ends[end], end).toBeGreaterThan(0)
    for (const moment of moments)
      expect(
        Object.keys(report.kills).some((key) => key.startsWith(`${moment}, `)),
        moment,
      ).toBe(true)
    for (const victim of ['broker', 'run host', 'worker', 'broker and run host'])
      expect(
        Object.keys(report.kills).some((key) => key.endsWith(`, ${victim}`)),
        victim,
      ).toBe(true)
  },
)
