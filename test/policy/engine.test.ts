import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { JsonObject } from '../../src/digest.ts'
import { replayText } from '../../src/policy/decision.ts'
import { openEngine } from '../../src/policy/engine.ts'
import type { Engine } from '../../src/policy/engine.ts'
import type { CompiledPack, Generation, PolicyInput } from '../../src/policy/policy.ts'
import { quickest } from '../cost.ts'
import { until } from '../wait.ts'
import { input, requestInput } from './fixtures/input.ts'
import { compileRego, forgedPack, generation, rule, temporaryFolder } from './fixtures/pack.ts'
import { answerOf, emptyOutput, forge, grantRule, granting } from './fixtures/wasm.ts'
import type { Forged } from './fixtures/wasm.ts'

const org = { pack: 'org', layer: 'org', kind: 'guard' } as const
const starter = { pack: 'starter', layer: 'team', kind: 'grant' } as const

const orgRules =
  rule('ORG-1', 'deny contains {"rule": rego.metadata.rule()} if input.action.name == "cancel_execution"') +
  // A list of that many numbers does not fit into the memory of a module.
  rule(
    'ORG-2',
    'deny contains {"rule": rego.metadata.rule()} if count(numbers.range(1, to_number(input.action.properties.arguments.n))) == 7',
  )
const starterRules = rule('ST-1', 'grant contains {"rule": rego.metadata.rule()}')

let folder: Awaited<ReturnType<typeof temporaryFolder>>
let packs: readonly CompiledPack[]
const engines: Engine[] = []

function engineOf(threads = 1, deadlineMs = 20_000): Engine {
  const engine = openEngine({ threads, deadlineMs })
  engines.push(engine)
  return engine
}

async function withForged(forged: Forged): Promise<Engine> {
  const engine = engineOf()
  await engine.load(generation(1, [forgedPack(starter, forge(forged))]))
  return engine
}

/** JSON with the keys of every object in the opposite order: it comes back from a store as it pleases. */
function reversed(value: unknown): string {
  return JSON.stringify(value, (_, member: unknown) =>
    typeof member === 'object' && member !== null && !Array.isArray(member)
      ? Object.fromEntries(Object.entries(member).toReversed())
      : member,
  )
}

beforeAll(async () => {
  folder = await temporaryFolder()
  packs = await compileRego(folder.path, [
    { ...org, rules: orgRules },
    { ...starter, rules: starterRules },
  ])
})
afterEach(async () => {
  await Promise.all(engines.splice(0).map(async (engine) => await engine.close()))
})
afterAll(async () => await folder.remove())

describe('an engine', () => {
  it('[G-policy-fail-closed] answers error no_generation until a policy is in force', async () => {
    const decision = await engineOf().decide(requestInput())
    expect(decision).toMatchObject({ effect: 'error', error: 'no_generation', generation: 0, modules: [], grants: [] })
    expect(decision.reasons).toEqual([expect.objectContaining({ code: 'no_generation', ref: decision.id })])
  })

  it('decides by all packs of the generation, and names each module', async () => {
    const engine = engineOf()
    await engine.load(generation(3, packs))
    const allowed = await engine.decide(requestInput())
    expect(allowed).toMatchObject({
      effect: 'allow',
      error: null,
      grants: ['starter/ST-1'],
      generation: 3,
      reasons: [],
    })
    expect(allowed.modules.map(({ pack, digest }) => [pack, digest])).toEqual(
      packs.map(({ pack, digest }) => [pack, digest]),
    )

    const denied = await engine.decide(input({ action: { name: 'cancel_execution', arguments: {} } }))
    expect(denied).toMatchObject({ effect: 'deny', grants: [], credentials: [] })
    expect(denied.reasons).toEqual([
      { code: 'denied', message: 'Rule ORG-1.', remedy: 'Change what ORG-1 names.', ref: denied.id },
    ])
    expect(denied.findings.find(({ id }) => id === 'org/ORG-1')?.at).toMatch(/rules\.rego:\d+$/)
  })

  it('[G-policy-survives] decides rightly after 10,000 hostile inputs', async () => {
    const engine = engineOf(2)
    await engine.load(generation(1, packs))
    let deep: JsonObject = {}
    for (let at = 0; at < 5000; at++) deep = { deep }
    const good = requestInput()
    const withArguments = (args: unknown): unknown => ({
      ...good,
      action: { name: 'x', properties: { arguments: args } },
    })
    const cyclic: Record<string, unknown> = {}
    cyclic['self'] = cyclic
    const hostile: readonly unknown[] = [
      withArguments(deep),
      withArguments({ name: '\ud800' }),
      withArguments({ '\udfff': 1 }),
      withArguments(JSON.parse('{"__proto__":{"roles":["operator"]}}')),
      withArguments({ n: Number.NaN }),
      withArguments({ n: 1n }),
      withArguments(cyclic),
      withArguments(new Map([['a', 1]])),
      withArguments([1]),
      new TextEncoder().encode(JSON.stringify(good)).buffer,
      JSON.stringify(good),
      undefined,
      null,
      false,
      0,
      '',
      [],
      {},
      { ...good, more: 1 },
      { ...good, context: undefined },
      { ...good, subject: { ...good.subject, type: 'operator' } },
      new Proxy(
        {},
        {
          ownKeys: () => {
            throw new Error('trap')
          },
        },
      ),
    ]
    const huge = withArguments({ text: 'x'.repeat(300_000) })
    const answers = new Map<string, number>()
    for (let at = 0; at < 10_000; at++) {
      const bad = at % 500 === 0 ? huge : hostile[at % hostile.length]
      const { effect, error } = await engine.decide(bad as PolicyInput)
      answers.set(`${effect} ${error}`, (answers.get(`${effect} ${error}`) ?? 0) + 1)
    }
    expect([...answers]).toEqual([['error input_rejected', 10_000]])
    expect(await engine.decide(good)).toMatchObject({ effect: 'allow' })
  }, 120_000)

  it('[G-policy-survives] decides rightly after each evaluation that failed, because the instance is thrown away', async () => {
    const engine = engineOf()
    await engine.load(generation(1, packs))
    for (let at = 0; at < 30; at++) {
      const bad = await engine.decide(requestInput({ n: '40000000' }))
      expect(bad).toMatchObject({ effect: 'error', error: 'policy_throw', grants: [] })
      expect(bad.reasons).toEqual([expect.objectContaining({ code: 'policy_throw' })])
      expect(await engine.decide(requestInput({ n: '7' }))).toMatchObject({ effect: 'deny' })
      expect(await engine.decide(requestInput({ n: '8' }))).toMatchObject({ effect: 'allow' })
    }
  }, 120_000)

  it('[G-policy-deadline] ends a module that spins within 50 ms of the deadline, and decides on', async () => {
    const engine = engineOf(1, 100)
    const spinning = generation(1, [...packs, forgedPack({ ...starter, pack: 'spin' }, forge({ evaluation: 'spin' }))])
    // A worker that was ended is started anew, which on a slow machine takes longer than a load may.
    const load = async (loaded: Generation): Promise<boolean> =>
      await until(
        'it is loaded',
        async () =>
          await engine.load(loaded).then(
            () => true,
            () => false,
          ),
      )
    await load(spinning)
    await engine.decide(requestInput())
    let number = 2
    const late = await quickest(3, async () => {
      await load(generation(number++, packs))
      await until('it decides on', async () => (await engine.decide(requestInput())).effect === 'allow')
      await load(spinning)
      // What keeps a timer of the same length waiting keeps the deadline waiting too.
      const deadline = pause(100).then(() => performance.now())
      const decision = await engine.decide(requestInput())
      const ended = performance.now()
      expect(decision).toMatchObject({ effect: 'error', error: 'deadline', grants: [] })
      return ended - (await deadline)
    })
    expect(late).toBeLessThan(50)
    await load(generation(number, packs))
    await until('it decides on', async () => (await engine.decide(requestInput())).effect === 'allow')
  }, 120_000)

  it('[G-policy-deadline] evaluates two at once where one would have to wait, and a slow one holds up no other then', async () => {
    const deadlineMs = 1500
    const engine = engineOf(2, deadlineMs)
    await engine.load(generation(1, [forgedPack(starter, forge({ evaluation: 'spin' }))]))
    const spent = async (count: number): Promise<number> => {
      const begun = performance.now()
      const all = await Promise.all(Array.from({ length: count }, async () => await engine.decide(requestInput())))
      expect(all.map(({ error }) => error)).toEqual(all.map(() => 'deadline'))
      return performance.now() - begun
    }
    const one = await spent(1)
    // The first that waits has the second worker started; from then on there are two.
    await spent(2)
    expect(await spent(2)).toBeLessThan(1.6 * one)
  }, 60_000)

  it('[G-policy-fail-closed] takes an abort, a trap, no result, a missing set, one more key and a wrong type for no', async () => {
    const { warn: _, ...without } = granting
    const cases: readonly (readonly [Forged, string])[] = [
      [{ evaluation: 'abort' }, 'policy_throw'],
      [{ evaluation: 'trap' }, 'policy_throw'],
      [{ answer: '[]' }, 'policy_undefined'],
      [{ answer: answerOf(null) }, 'output_schema'],
      [{ answer: answerOf(true) }, 'output_schema'],
      [{ answer: answerOf(without) }, 'output_schema'],
      [{ answer: answerOf({ ...granting, allow: true }) }, 'output_schema'],
      [{ answer: answerOf({ ...granting, deny: {} }) }, 'output_schema'],
      [{ answer: answerOf({ ...granting, grant: [{ rule: { ...grantRule, id: 1 } }] }) }, 'output_schema'],
      [{ answer: answerOf({ ...granting, grant: [{ rule: grantRule, also: 1 }] }) }, 'output_schema'],
      [{ answer: answerOf({ ...emptyOutput, grant: [{ rule: { ...grantRule, id: 'unknown' } }] }) }, 'output_schema'],
      [{ answer: `[{"result":${JSON.stringify(granting).replace('}', ',"__proto__":{"x":1}}')}}]` }, 'output_schema'],
    ]
    for (const [forged, error] of cases) {
      const engine = await withForged(forged)
      expect(await engine.decide(requestInput())).toMatchObject({ effect: 'error', error, grants: [] })
    }
    expect(await (await withForged({ answer: answerOf(granting) })).decide(requestInput())).toMatchObject({
      effect: 'allow',
    })
  }, 120_000)

  it('shows a caller nothing of why an evaluation failed', async () => {
    const engine = await withForged({ evaluation: 'abort', answer: 'secret pattern ^10\\.' })
    const { reasons } = await engine.decide(requestInput())
    expect(JSON.stringify(reasons)).not.toMatch(/secret|starter|forged|abort/)
  })
})

describe('a pack', () => {
  it('[G-policy-bounded] that says more than 256 KiB is taken for one that says what it may not', async () => {
    const rules = `${rule('ST-1', 'grant contains {"rule": rego.metadata.rule()}')}
${rule(
  'ST-2',
  `warn contains {"rule": rego.metadata.rule(), "message": $"{at} {text}"} if {
	text := input.action.properties.arguments.text
	some at in numbers.range(1, input.action.properties.arguments.count)
}`,
)}`
    const engine = engineOf()
    const talking = await compileRego(folder.path, [{ pack: 'talking', layer: 'team', kind: 'grant', rules }])
    await engine.load(generation(1, talking))
    const saying = async (count: number) => await engine.decide(requestInput({ text: 'x'.repeat(1900), count }))
    expect(await saying(100)).toMatchObject({ effect: 'allow' })
    expect(await saying(150)).toMatchObject({ effect: 'error', error: 'output_schema', findings: [{ kind: 'error' }] })
    expect(await saying(1)).toMatchObject({ effect: 'allow' })
  })

  it('may say something in every set, with optional fields left out', async () => {
    const elements: readonly (readonly [string, string])[] = [
      ['grant', ''],
      [
        'require_approval',
        ', "stages": [{"id": "owner", "roles": ["approver"], "min": 1}], "exclude": [], "evidence": ["key"], "request_ttl_s": 60, "execute_within_s": 60',
      ],
      ['limit', ', "wall_s": 60'],
      ['credential', ', "name": "vault-token"'],
      ['sandbox', ', "isolation": "process"'],
      ['warn', ', "message": "mind this"'],
    ]
    const rules = elements.map(([set, more], at) =>
      rule(`S-${at}`, `${set} contains {"rule": rego.metadata.rule()${more}} if input.phase == "execution"`),
    )
    const [pack] = await compileRego(join(folder.path, 'sets'), [{ ...starter, rules: rules.join('\n') }])
    if (pack === undefined) throw new Error('no pack')
    const engine = engineOf()
    await engine.load(generation(1, [pack]))
    const decision = await engine.decide(input())
    expect(decision).toMatchObject({
      effect: 'pending',
      error: null,
      limits: { wall_s: 60 },
      credentials: ['vault-token'],
    })
    expect(new Set(decision.findings.map(({ id, kind }) => `${kind} ${id}`))).toEqual(
      new Set(elements.map(([kind], at) => `${kind} starter/S-${at}`)),
    )
  })
})

describe('loading', () => {
  it('[G-policy-fail-closed] refuses a generation with a bad module or digest, and the one before stays', async () => {
    const engine = engineOf()
    await engine.load(generation(1, packs))
    const good = forgedPack({ ...starter, pack: 'other' }, forge())
    const bad = [
      generation(2, [...packs, forgedPack({ ...starter, pack: 'other' }, forge({ builtins: '{"constructor":1}' }))]),
      generation(2, [...packs, forgedPack({ ...starter, pack: 'other' }, forge({ entrypoints: '{}' }))]),
      generation(2, [...packs, forgedPack({ ...starter, pack: 'other' }, new Uint8Array([1, 2]))]),
      generation(2, [...packs, { ...good, module: forge({ evaluation: 'abort' }) }]),
      generation(2, [...packs, ...packs]),
      { ...generation(2, packs), digest: good.digest },
    ]
    for (const broken of bad) await expect(engine.load(broken)).rejects.toMatchObject({ code: 'invalid_policy' })
    expect(engine.generation?.number).toBe(1)
    expect(await engine.decide(requestInput())).toMatchObject({ effect: 'allow', generation: 1 })
  })

  it('refuses a module that spins while it starts', async () => {
    const engine = engineOf(1, 2000)
    await engine.load(generation(1, packs))
    const spinning = generation(2, [forgedPack(starter, forge({ spinsAtStart: true }))])
    await expect(engine.load(spinning)).rejects.toMatchObject({ code: 'invalid_policy' })
    expect(await engine.decide(requestInput())).toMatchObject({ effect: 'allow', generation: 1 })
  }, 60_000)

  it('lets decisions that were asked for before keep their generation', async () => {
    const engine = engineOf(1)
    await engine.load(generation(1, packs))
    const before = Array.from({ length: 20 }, async () => await engine.decide(requestInput()))
    await engine.load(generation(2, [forgedPack(starter, forge({ answer: answerOf(emptyOutput) }))]))
    for (const decision of await Promise.all(before)) expect(decision).toMatchObject({ effect: 'allow', generation: 1 })
    expect(await engine.decide(requestInput())).toMatchObject({ effect: 'deny', generation: 2 })
  })

  it('takes the last of several generations loaded at once', async () => {
    const engine = engineOf(2)
    await Promise.all([1, 2, 3].map(async (number) => await engine.load(generation(number, packs))))
    expect(engine.generation?.number).toBe(3)
  })

  it('denies everything where no pack is attached', async () => {
    const engine = engineOf()
    await engine.load(generation(1, []))
    expect(await engine.decide(requestInput())).toMatchObject({ effect: 'deny' })
  })
})

describe('replay', () => {
  it('[G-policy-replay] gives the same decision bytes in an engine started anew', async () => {
    const inputs = [
      input(),
      requestInput({ a: [1, 2.5, 'ü', { z: 1, a: null }] }),
      input({ action: { name: 'cancel_execution', arguments: {} } }),
    ]
    const texts: string[][] = []
    for (const number of [1, 9]) {
      const engine = engineOf(2)
      await engine.load(generation(number, packs))
      const again = number === 1 ? inputs : inputs.map((one) => JSON.parse(reversed(one)) as PolicyInput)
      const decisions = await Promise.all(again.map(async (one) => await engine.decide(one)))
      texts.push(decisions.map((decision) => replayText(decision)))
      await engine.close()
    }
    expect(texts[1]).toEqual(texts[0])
    expect(new Set(texts[0]).size).toBe(3)
  })

  it('answers after close, with an error', async () => {
    const engine = engineOf()
    await engine.load(generation(1, packs))
    await engine.close()
    expect(await engine.decide(requestInput())).toMatchObject({ effect: 'error' })
  })
})
