import { expect, it } from 'vitest'
import { engine } from '../servers/engine.ts'
import { campaign, moments, victims } from './crash/campaign.ts'
import { containers } from './crash/sandbox.ts'

/** Of broker, run host and containers. */
const kills = 54

it(
  `[G-no-loss] [G-once] [G-container-swept] survives ${String(kills)} kills of broker, run host and containers of both runtimes at random moments: nothing acknowledged is lost, nothing runs twice, no container is left 30 s after the restart`,
  { timeout: 1_800_000 },
  async (ctx) => {
    const found = await engine({ images: ['writ/python:latest'], runsc: true })
    if ('lacking' in found) return ctx.skip(found.lacking)
    const seed = Math.floor(Math.random() * 2 ** 31)
    const report = await campaign({ seed, kills, everywhere: true, sandbox: containers(found, [null, 'runsc']) })
    process.stdout.write(`${JSON.stringify(report, null, 2)}\n`)
    expect(report.breaches).toEqual([])
    expect(report.total).toBeGreaterThanOrEqual(kills)
    expect(report.ends['succeeded']).toBeGreaterThan(0)
    expect(report.ends['unknown']).toBeGreaterThan(0)
    const hit = Object.keys(report.kills).map((key) => key.split(', '))
    expect(new Set(hit.map(([moment]) => moment))).toEqual(new Set(moments))
    expect(new Set(hit.map(([, victim]) => victim))).toEqual(new Set(victims))
  },
)
