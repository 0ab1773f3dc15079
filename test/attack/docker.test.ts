import { readFileSync, readdirSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Engine, engine, newerEngine } from '../servers/engine.ts'
import { attacks, table } from './docker/attacks.ts'
import type { Attack } from './docker/attacks.ts'
import { type Canary, openCanary } from './docker/canary.ts'
import { openPlace, type Place } from './docker/place.ts'

const folder = new URL('./programs/docker/', import.meta.url)
const image = 'writ/python'
/** Megabytes that a run host may grow by over an attack. */
const mostGrowthMb = 64

/** Those whose outcome an engine and its runtime could change, and no limit does: for an engine that strict settings take. */
const some =
  `D-02-families D-02-other-entries D-02-syscalls D-04-kernel-calls D-05-privilege D-06-kernel-files D-08-devices
  D-09-sockets D-10-information D-11-daemons D-12-fork-limit D-13-memory D-20-leak-descriptors D-21-outputs
  D-26-overwrite-runtime D-27-handles E-14-tunnels`.split(/\s+/)

test('every program has its expected outcome, and every outcome its program', () => {
  expect(readdirSync(folder).sort()).toEqual([...Object.keys(attacks), table].sort())
  expect(some.filter((name) => !Object.hasOwn(attacks, `${name}.py`))).toEqual([])
})

describe.each([
  { where: 'runc', runtime: 'runc', strict: false },
  { where: 'runsc', runtime: 'runsc', strict: false },
  { where: 'runc, strict', runtime: 'runc', strict: true },
] as const)('attacks on a container of $where', ({ runtime, strict }) => {
  let found: Engine
  let lacking: string | null = null
  let place: Place | null = null
  let canary: Canary | null = null
  beforeAll(async () => {
    const answer = strict
      ? await newerEngine()
      : await engine({ images: [`${image}:latest`], runsc: runtime === 'runsc' })
    if ('lacking' in answer) lacking = answer.lacking
    else {
      found = answer
      canary = await openCanary(found)
      const owner = `attack-${runtime}${strict ? '-strict' : ''}-${process.pid}`
      place = await openPlace(found, runtime === 'runc' ? null : runtime, image, owner, { canary, strict })
      // What a run host takes once, for its code and to carry output at all, is not what an attack makes it take.
      await place.run({ files: {}, argv: [['head', '-c', '150000000', '/dev/zero']], limits: { output_kb: 16 } })
    }
  }, 60_000)
  afterAll(async () => {
    await canary?.close()
    if (place === null) return
    await place.close()
    if ((await place.left()).length > 0) throw new Error('containers are left')
  })

  const cases = Object.entries(attacks)
    .filter(([name]) => !strict || some.includes(name.replace('.py', '')))
    .flatMap(([name, list]) =>
      list.map((attack): readonly [string, string, Attack] => [
        name,
        attack.steps?.flat().join(' ') ?? (attack.bare === true ? 'bare' : ''),
        attack,
      ]),
    )
  test.for(cases)(
    '%s %s ends exactly so, and the credential it used is in no sink [G-container-holds] [G-secret-nowhere]',
    { timeout: 90_000 },
    async ([name, , attack], ctx) => {
      if (lacking !== null) return ctx.skip(lacking)
      if (place === null) throw new Error('there is no run host')
      const ran = await place.run({
        files: {
          [name]: readFileSync(new URL(name, folder)),
          ...(name === 'D-02-syscalls.py' ? { [table]: readFileSync(new URL(table, folder)) } : {}),
        },
        argv: (attack.steps ?? [[]]).map((given) => ['python3', name, ...given]),
        bare: attack.bare === true,
        ...(attack.limits === undefined ? {} : { limits: attack.limits }),
      })
      const expected = {
        ...attack.expected,
        ...(runtime === 'runsc' ? attack.runsc : {}),
        ...(strict ? attack.strict : {}),
      }
      const { outcome, counts } = ran.end
      const steps = outcome.end === 'not_started' ? [] : outcome.steps
      expect({
        end: outcome.end,
        why: outcome.end === 'exited' ? outcome.reason : outcome.end === 'stopped' ? outcome.by : null,
        exit: steps.at(-1)?.exit ?? null,
        isolation: counts.isolation_applied,
        ...(typeof expected.stdout === 'string' ? { stdout: ran.stdout } : {}),
        outputs: [...ran.files.keys()].toSorted(),
        running: await place.running(),
      }).toEqual({
        end: expected.end,
        why: expected.why,
        exit: expected.exit,
        isolation: runtime === 'runc' ? 'container' : 'user-kernel',
        ...(typeof expected.stdout === 'string' ? { stdout: expected.stdout } : {}),
        outputs: expected.outputs ?? [],
        running: [],
      })
      expect(await place.left()).toEqual([])
      if (attack.bare !== true) {
        expect(ran.canary).toMatchObject({ used: true, leaks: [] })
        expect(ran.canary?.growthMb).toBeLessThan(mostGrowthMb)
      }
      if (typeof expected.stdout !== 'string') expected.stdout(ran.stdout)
      attack.look?.(ran, { runtime, engine: found, strict })
    },
  )

  test('… and the next run on the same machine is served', { timeout: 30_000 }, async (ctx) => {
    if (lacking !== null) return ctx.skip(lacking)
    if (place === null) throw new Error('there is no run host')
    const ran = await place.run({ files: { 'm.py': "print('fine')" }, argv: [['python3', 'm.py']] })
    expect(ran.end.outcome).toMatchObject({ end: 'exited', steps: [{ exit: 0 }] })
    expect(ran.stdout).toBe('fine\n')
  })

  test('the credential would be found there: in output, in a name, in what the engine tells', async (ctx) => {
    if (lacking !== null) return ctx.skip(lacking)
    const [secret] = canary?.secrets ?? []
    if (canary === null || secret === undefined) throw new Error('there is no canary')
    const value = secret.reveal()
    const watch = canary.watch(process.pid)
    const { Id } = (await found.ask('POST', '/containers/create', {
      Image: image,
      Env: [`TOKEN=${String(value)}`],
      Labels: { token: value.toString('base64') },
    })) as { readonly Id: string }
    await watch.look(Id)
    await found.ask('DELETE', `/containers/${Id}?force=true`)
    const { used, looked, leaks } = watch.end({
      stdout: value.toString('hex'),
      'a name of a file': encodeURIComponent(String(value)),
      nothing: 'nothing',
    })
    expect({ used, looked }).toEqual({ used: false, looked: 1 })
    expect(leaks.filter((leak) => leak.startsWith('vault')).map((leak) => leak.replace(/\/\S*\//, '/'))).toEqual(
      expect.arrayContaining([
        'vault in stdout',
        'vault in a name of a file',
        'vault in the inspection',
        'vault in the events of the engine',
        'vault in /config.v2.json',
      ]),
    )
  })
})
