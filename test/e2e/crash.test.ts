import { expect, it } from 'vitest'
import { campaign, moments, victims } from './crash/campaign.ts'

/** Processes killed; `node tools/crash.mjs --kills N` does as many as wanted. */
const kills = 104

it(
  `[G-no-loss] [G-once] [G-nothing-left] survives ${String(kills)} kills of broker, run host and workers at random moments of the path: nothing acknowledged is lost, nothing runs twice, nothing is left`,
  { timeout: 1_800_000 },
  async () => {
    const seed = Math.floor(Math.random() * 2 ** 31)
    const report = await campaign({ seed, kills, everywhere: true })
    const told = `${JSON.stringify(report, null, 2)}\nagain with: node tools/crash.mjs --kills ${String(kills)} --seed ${String(seed)}\n`
    process.stdout.write(told)
    expect(report.breaches).toEqual([])
    expect(report.total).toBeGreaterThanOrEqual(kills)
    // A campaign in which every run was lost, or none was, would have shown nothing.
    expect(report.ends['succeeded']).toBeGreaterThan(0)
    expect(report.ends['unknown']).toBeGreaterThan(0)
    const hit = Object.keys(report.kills).map((key) => key.split(', '))
    expect(new Set(hit.map(([moment]) => moment))).toEqual(new Set(moments))
    expect(new Set(hit.map(([, victim]) => victim))).toEqual(new Set(victims))
  },
)
