import { describe, expect, it } from 'vitest'
import { canonical, digestOf } from '../../src/digest.ts'
import type { JsonObject } from '../../src/digest.ts'
import { buildInput, checkInput, maxBytes } from '../../src/policy/input.ts'
import type { PolicyInput } from '../../src/policy/policy.ts'
import { maxInputBytes, maxInputDepth, newTask } from '../../src/request/submit.ts'
import { approvalOf, caller, input, nowMs, plan, requestInput, task } from './fixtures/input.ts'

function nested(levels: number): JsonObject {
  let value: JsonObject = { end: true }
  for (let at = 1; at < levels; at++) value = { in: value }
  return value
}

function argvOf(inputs: JsonObject): { title: string; argv: string[]; success: number[] } {
  return { title: 'run', argv: ['main.js', canonical(inputs)], success: [0] }
}

function leaves(value: unknown, path = ''): string[] {
  if (typeof value !== 'object' || value === null) return value === undefined ? [path] : []
  return Object.entries(value).flatMap(([key, member]) => leaves(member, `${path}.${key}`))
}

describe('an input', () => {
  it('has every field of every phase, null or empty where there is nothing', () => {
    for (const phase of ['request', 'execution', 'approval', 'egress'] as const) {
      const built = input({ phase, task: null, plan: null })
      expect(leaves(built)).toEqual([])
      expect(Object.keys(built.context).toSorted()).toEqual([
        'approvals',
        'call',
        'counters',
        'plan',
        'supported_obligations',
        'task',
        'time',
        'truncated',
        'verdict',
      ])
      expect(checkInput(built)).toMatchObject({ ok: true })
    }
  })

  it('freezes the time in whole seconds of UTC', () => {
    expect(requestInput().context.time).toEqual({
      rfc3339: '2026-11-23T19:30:00Z',
      unix_s: 1795462200,
      weekday: 'mon',
      minute_of_day: 1170,
    })
    expect(requestInput().subject.properties.auth).toEqual({ method: 'socket', age_s: 840 })
    const early = buildInput({ ...partsOf(), nowMs: caller.auth.atMs - 5000 })
    expect(early.subject.properties.auth.age_s).toBe(0)
  })

  it('[G-no-infrastructure] names services and credentials of a plan, never where they are', () => {
    const text = canonical(input())
    expect(input().context.plan).toMatchObject({
      services: ['vault'],
      credentials: [{ name: 'vault-token', lane: 'placeholder', exposure: 'none' }],
    })
    for (const service of plan.services) {
      expect(text).not.toContain(service.url)
      for (const range of service.addresses) expect(text).not.toContain(range)
    }
    expect(text).not.toContain(plan.nonce)
  })

  it('names files by path, digest and size', () => {
    expect(input().context.task?.files).toEqual([{ path: 'main.js', sha256: task.files[0]?.sha256, size: 120 }])
  })

  it('shows every host of a plan, one without an origin too', () => {
    const hosts = [{ origin: 'https://pypi.example' }, { cidr: '10.0.0.0/8' }]
    const built = input({ plan: { plan: { ...plan, hosts }, digest: digestOf('') } })
    expect(built.context.plan?.hosts).toEqual(['https://pypi.example', '{"cidr":"10.0.0.0/8"}'])
  })

  it('[G-policy-sees-all] holds arguments that are too large or too deep as digest and excerpt, and says so', () => {
    const large = { text: 'é😀'.repeat(maxBytes / 6) }
    for (const free of [large, nested(62), nested(900)]) {
      const built = requestInput(free)
      expect(built.action.properties.arguments).toEqual({
        truncated: true,
        digest: digestOf(canonical(free)),
        excerpt: expect.any(String) as string,
      })
      expect(built.context.truncated).toEqual(['arguments'])
      expect(checkInput(built)).toMatchObject({ ok: true })
    }
    for (const whole of [nested(61), { text: 'x'.repeat(200_000) }]) {
      const built = requestInput(whole)
      expect(built.action.properties.arguments).toEqual(whole)
      expect(built.context.truncated).toEqual([])
      expect(checkInput(built)).toMatchObject({ ok: true })
    }
  })

  it('[G-policy-sees-all] holds all of the inputs, the goal and the context that a task may have', () => {
    const args = {
      project_name: 'p',
      target_ref: 't',
      execution_intent: 'i',
      goal: '\u0001'.repeat(4096),
      context: '\u0001'.repeat(4096),
    }
    const made = { id: task.id, nowMs, files: [] }
    const long = { text: 'x'.repeat(maxInputBytes - '{"text":""}'.length) }
    for (const inputs of [long, nested(maxInputDepth)]) {
      const full = newTask(caller, { ...args, inputs }, made)
      const built = input({ task: full, plan: { plan: { ...plan, steps: [argvOf(inputs)] }, digest: digestOf('') } })
      expect(built.context.task).toMatchObject({ inputs, goal: args.goal, context: args.context })
      expect(built.context.truncated).toEqual([])
      expect(checkInput(built)).toMatchObject({ ok: true })
    }
    expect(() => newTask(caller, { ...args, inputs: { text: 'x'.repeat(maxInputBytes) } }, made)).toThrow('64 KiB')
    expect(() => newTask(caller, { ...args, inputs: nested(maxInputDepth + 1) }, made)).toThrow('32 levels')
  })

  it('[G-policy-sees-all] holds the first of the files where all are too many, says so, and has room for what comes later', () => {
    const many = (length: number): typeof task => ({
      ...task,
      files: Array.from({ length: 1000 }, (_, at) => ({
        path: `${at}/`.padEnd(length, 'é'),
        sha256: digestOf(String(at)),
        size: 12_345,
        executable: false,
      })),
    })
    expect(input({ task: many(40) }).context.truncated).toEqual([])
    expect(input({ task: many(40) }).context.task?.files).toHaveLength(1000)
    const approvals = Array.from({ length: 50 }, (_, at) => approvalOf({ by: `person-${at}@acme.example` }))
    const call = {
      service: 's',
      host: 'h',
      port: 443,
      method: 'GET',
      path: 'p'.repeat(8192),
      size: 0,
      credential: null,
    }
    const cut = input({ task: many(200) })
    expect(cut.context.truncated).toEqual(['task.files'])
    const shown = cut.context.task?.files.length ?? 0
    expect(shown).toBeGreaterThan(300)
    for (const later of [{ approvals }, { call }]) {
      const built = input({ task: many(200), ...later })
      expect(built.context.task?.files).toHaveLength(shown)
      expect(checkInput(built)).toMatchObject({ ok: true })
    }
  })

  it('refuses to be built from strings that are not well-formed', () => {
    expect(() => requestInput({ name: '\ud800' })).toThrow('lone surrogate')
    expect(() => requestInput({ '\udc00': 1 })).toThrow('lone surrogate')
  })
})

function partsOf(): Parameters<typeof buildInput>[0] {
  return {
    phase: 'request',
    caller,
    action: { name: 'tools/list', arguments: {} },
    resource: { type: 'none', id: '', properties: { owner: null, tenant: null, labels: {} } },
    nowMs,
    counters: { executions_60m: 0, denied_10m: 0, running: 0 },
  }
}

describe('the check of an input', () => {
  it('gives one canonical text, whatever the order of keys', () => {
    const built = input()
    const turned = Object.fromEntries(Object.entries(built).toReversed()) as unknown as PolicyInput
    const [a, b] = [checkInput(built), checkInput(turned)]
    if (!a.ok || !b.ok) throw new Error('refused')
    expect(b.text).toBe(a.text)
    expect(a.text).toBe(canonical(built))
    expect(JSON.parse(a.text)).toEqual(built)
  })

  it('refuses a missing field, one more, and a value of another type, at any level', () => {
    const built = input()
    const bad: readonly unknown[] = [
      { ...built, schema: 'writ.input/v2' },
      { ...built, phase: 'Request' },
      { ...built, extra: null },
      { ...built, context: { ...built.context, extra: 1 } },
      { ...built, context: { ...built.context, approvals: null } },
      { ...built, subject: { ...built.subject, id: '' } },
      { ...built, context: { ...built.context, counters: { executions_60m: -1, denied_10m: 0, running: 0 } } },
      { ...built, context: { ...built.context, counters: { executions_60m: 0.5, denied_10m: 0, running: 0 } } },
      { ...built, resource: { ...built.resource, properties: { ...built.resource.properties, labels: { env: 1 } } } },
      Object.fromEntries(Object.entries(built).filter(([key]) => key !== 'context')),
      // What an object inherits is not its own, and what it has once too often takes no other's place.
      Object.assign(Object.create({ context: built.context }) as object, { ...built, context: undefined }),
      { ...built, context: { ...built.context, call: undefined } },
      { ...built, context: { ...built.context, supported_obligations: { length: 0 } } },
      { ...built, context: { ...built.context, time: { ...built.context.time, rfc3339: 'now' } } },
      { ...built, context: { ...built.context, time: { ...built.context.time, minute_of_day: 1440 } } },
      {
        ...built,
        resource: { ...built.resource, properties: { ...built.resource.properties, labels: { a: '\ud800' } } },
      },
      { ...built, resource: { ...built.resource, properties: { ...built.resource.properties, labels: ['a'] } } },
    ]
    for (const value of bad) expect(checkInput(value)).toMatchObject({ ok: false })
  })

  it('refuses what JSON does not have, depth over 64 and size over 256 KiB', () => {
    const holding = (value: unknown): unknown => ({
      ...requestInput(),
      action: { name: 'x', properties: { arguments: { value } } },
    })
    const bad = [
      undefined,
      () => 1,
      Symbol('x'),
      1n,
      Number.NaN,
      Infinity,
      new Date(),
      new Uint8Array(2),
      '\udfff',
      Object.assign([], { length: 3 }),
      nested(61),
    ]
    for (const value of bad) expect(checkInput(holding(value))).toMatchObject({ ok: false })
    expect(checkInput(holding(JSON.parse('{"__proto__":1}')))).toMatchObject({ ok: false })
    expect(checkInput(holding('x'.repeat(maxBytes)))).toMatchObject({
      ok: false,
      why: expect.stringContaining('bytes') as string,
    })
    expect(checkInput(holding('x'.repeat(maxBytes - 2000)))).toMatchObject({ ok: true })
    expect(checkInput(holding(nested(60)))).toMatchObject({ ok: true })
  })
})
