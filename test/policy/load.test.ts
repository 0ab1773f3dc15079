import * as fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { canonical } from '../../src/digest.ts'
import type { Json } from '../../src/digest.ts'
import { WritError } from '../../src/error.ts'
import { registerBuiltins } from '../../src/policy/builtins.ts'
import type { Builtin } from '../../src/policy/builtins.ts'
import { compileModule, mayShare, memoryPages, openInstance } from '../../src/policy/load.ts'
import type { Instance } from '../../src/policy/load.ts'
import { input } from './fixtures/input.ts'
import { compileRego, rule, temporaryFolder } from './fixtures/pack.ts'
import { answerOf, emptyOutput, forge, granting } from './fixtures/wasm.ts'
import type { Forged } from './fixtures/wasm.ts'

function bytes(text: string): ArrayBuffer {
  return new TextEncoder().encode(text).buffer
}

async function open(forged: Forged, builtins?: ReadonlyMap<string, Builtin>) {
  return openInstance(await compileModule(forge(forged)), builtins)
}

async function refused(forged: Forged): Promise<string> {
  try {
    await open(forged)
  } catch (error) {
    if (error instanceof WritError && error.code === 'invalid_policy') return error.message
    throw error
  }
  throw new Error('the module was not refused')
}

describe('load checks', () => {
  it('takes a module that has exactly what OPA modules have', async () => {
    const instance = await open({ answer: answerOf(granting) })
    expect(instance.evaluate(bytes('{}'))).toEqual({ ok: true, value: granting })
  })

  it('refuses what is not WebAssembly', async () => {
    for (const junk of [new Uint8Array(), new TextEncoder().encode('package writ'), forge().subarray(0, 40)]) {
      await expect(compileModule(junk)).rejects.toMatchObject({ code: 'invalid_policy' })
    }
  })

  it('[G-policy-sandbox] refuses a module that imports anything but its memory and the OPA functions', async () => {
    expect(await refused({ imports: [['wasi_snapshot_preview1', 'fd_write']] })).toMatch(
      'wasi_snapshot_preview1.fd_write',
    )
    expect(await refused({ imports: [['env', 'emscripten_run_script']] })).toMatch('env.emscripten_run_script')
    expect(await refused({ imports: [['env', '__proto__']] })).toMatch('env.__proto__')
    expect(await refused({ imports: [['js', 'opa_abort']] })).toMatch('js.opa_abort')
    expect(await refused({ imports: [['env', 'memory']] })).toMatch('function env.memory')
  })

  it('[G-policy-sandbox] refuses a module with a memory that the host does not bound', async () => {
    expect(await refused({ memory: 'own' })).toMatch('does not import its memory')
    expect(await refused({ memory: 'both' })).toMatch('memory of its own')
  })

  it('refuses an ABI other than 1.2 and 1.3', async () => {
    for (const abi of [
      [1, 1],
      [1, 4],
      [0, 3],
      [2, 2],
    ] as const)
      expect(await refused({ abi })).toMatch('ABI')
    for (const name of ['opa_eval', 'opa_malloc', 'builtins', 'entrypoints', 'opa_json_dump']) {
      expect(await refused({ without: name })).toMatch(name)
    }
    await expect(open({ abi: [1, 2] })).resolves.toBeDefined()
  })

  it('[G-policy-sandbox] refuses built-ins that are not listed, names of Object.prototype included', async () => {
    for (const name of [
      'constructor',
      '__proto__',
      'valueOf',
      'toString',
      'hasOwnProperty',
      'sprintf',
      'http.send',
      'regex.split',
    ]) {
      expect(await refused({ builtins: `{"${name}":1}` })).toMatch(name)
    }
    expect(await refused({ builtins: '[]' })).toMatch('built-ins')
    expect(await refused({ builtins: '{"a":"constructor"}' })).toMatch('built-ins')
  })

  it('refuses entry points other than exactly writ/main', async () => {
    for (const entrypoints of [
      '{}',
      '{"writ/main":0,"writ/other":1}',
      '{"writ/Main":0}',
      '{"__proto__":0}',
      '[0]',
      'null',
      '{"writ/main":"0"}',
    ]) {
      expect(await refused({ entrypoints })).toMatch(/entry points/)
    }
  })

  it('checks in order: imports, ABI, built-ins, entry points', async () => {
    const bad: Forged = { imports: [['env', 'x']], abi: [1, 1], builtins: '{"x":1}', entrypoints: '{}' }
    expect(await refused(bad)).toMatch('imports')
    expect(await refused({ ...bad, imports: [] })).toMatch('ABI')
    expect(await refused({ ...bad, imports: [], abi: [1, 3] })).toMatch('built-in x')
    expect(await refused({ ...bad, imports: [], abi: [1, 3], builtins: '{}' })).toMatch('entry points')
  })
})

describe('an instance', () => {
  it('prints nothing, whatever the module prints', async () => {
    const print = vi.spyOn(console, 'log')
    const module = await compileModule(forge({ imports: [['env', 'opa_println']], answer: answerOf(emptyOutput) }))
    expect(openInstance(module).evaluate(bytes('{}')).ok).toBe(true)
    expect(print).not.toHaveBeenCalled()
    print.mockRestore()
  })

  it('answers policy_throw and asks to be discarded for every way a module can fail', async () => {
    for (const evaluation of ['abort', 'trap', 'recurse'] as const) {
      expect((await open({ evaluation })).evaluate(bytes('{}'))).toEqual({
        ok: false,
        error: 'policy_throw',
        discard: true,
      })
    }
    expect((await open({ answer: 'not json' })).evaluate(bytes('{}'))).toMatchObject({
      ok: false,
      error: 'policy_throw',
    })
  })

  it('answers policy_undefined where there is no result', async () => {
    for (const answer of ['[]', 'null', '{}', '"x"', '[1,2]']) {
      expect((await open({ answer })).evaluate(bytes('{}'))).toMatchObject({ ok: false, error: 'policy_undefined' })
    }
    expect((await open({ answer: '[null]' })).evaluate(bytes('{}'))).toEqual({ ok: true, value: undefined })
  })

  it('honours the maximum of its memory', async () => {
    const instance = await open({ evaluation: 'grow' })
    const before = process.memoryUsage().rss
    expect(instance.evaluate(bytes('{}'))).toMatchObject({ ok: false, error: 'policy_throw', discard: true })
    expect(process.memoryUsage().rss - before).toBeLessThan(memoryPages.maximum * 64 * 1024 * 4)
    expect(instance.evaluate(new ArrayBuffer(memoryPages.maximum * 64 * 1024 + 1))).toMatchObject({
      ok: false,
      error: 'input_rejected',
    })
  })
})

describe('host built-ins', () => {
  const forged: Forged = { builtins: '{"test.value":7}', evaluation: 'builtin', answer: answerOf(granting) }

  it('are called by the name the module gave their number', async () => {
    const called = vi.fn<() => { a: number }>(() => ({ a: 1 }))
    const instance = await open(forged, registerBuiltins([['test.value', called]]))
    expect(instance.evaluate(bytes('{}'))).toEqual({ ok: true, value: granting })
    expect(called).toHaveBeenCalledOnce()
  })

  it('[G-policy-fail-closed] turn the whole evaluation into builtin_error when they throw, and nothing is thrown through the module', async () => {
    const failing = registerBuiltins([
      [
        'test.value',
        () => {
          throw new TypeError('bad argument')
        },
      ],
    ])
    const instance = await open(forged, failing)
    expect(instance.evaluate(bytes('{}'))).toEqual({ ok: false, error: 'builtin_error', discard: true })
  })

  it('that are asynchronous are refused when they are registered, and when they answer with a promise', async () => {
    const later = async (): Promise<boolean> => await Promise.resolve(true)
    expect(() => registerBuiltins([['test.value', later as unknown as Builtin]])).toThrow('not synchronous')
    const sneaky = registerBuiltins([['test.value', () => later() as unknown as boolean]])
    expect((await open(forged, sneaky)).evaluate(bytes('{}'))).toMatchObject({ ok: false, error: 'builtin_error' })
    const lazy = Object.fromEntries(['then'].map((name) => [name, () => true]))
    const thenable = registerBuiltins([['test.value', () => lazy as unknown as boolean]])
    expect((await open(forged, thenable)).evaluate(bytes('{}'))).toMatchObject({ ok: false, error: 'builtin_error' })
  })

  it('that answer undefined make the expression undefined, as in OPA', async () => {
    const instance = await open(forged, registerBuiltins([['test.value', () => undefined]]))
    expect(instance.evaluate(bytes('{}')).ok).toBe(true)
  })
})

describe('a real module', () => {
  let folder: Awaited<ReturnType<typeof temporaryFolder>>
  let module: WebAssembly.Module
  const good = canonical(input())

  beforeAll(async () => {
    folder = await temporaryFolder()
    const rules = rule('R-1', 'grant contains {"rule": rego.metadata.rule()} if input.phase == "execution"')
    const [pack] = await compileRego(folder.path, [{ pack: 'real', layer: 'org', kind: 'grant', rules }])
    if (pack === undefined) throw new Error('no pack')
    module = await compileModule(pack.module)
  })
  afterAll(async () => await folder.remove())

  it('dies of a thousand throws when its instance is kept, and not when it is replaced after each', () => {
    const surrogate = bytes(good.replace('alice@acme.example', '\\ud800'))
    const kept = openInstance(module)
    for (let at = 0; at < 1100; at++) kept.evaluate(surrogate)
    expect(kept.evaluate(bytes(good)).ok).toBe(false)

    let instance = openInstance(module)
    for (let at = 0; at < 1100; at++) {
      const answer = instance.evaluate(surrogate)
      expect(answer).toEqual({ ok: false, error: 'policy_throw', discard: true })
      instance = openInstance(module)
    }
    expect(instance.evaluate(bytes(good))).toMatchObject({ ok: true, value: { grant: [{ rule: { id: 'R-1' } }] } })
  })
})

describe('an input that is read once for several modules', () => {
  let folder: Awaited<ReturnType<typeof temporaryFolder>>
  let modules: readonly WebAssembly.Module[]
  const encoder = new TextEncoder()
  const made = (at: number): Instance => {
    const module = modules[at]
    if (module === undefined) throw new Error('no such module')
    return openInstance(module)
  }

  beforeAll(async () => {
    folder = await temporaryFolder()
    // Each says all it was shown, and is of another size.
    const says = rule('R-1', 'obligation contains {"rule": rego.metadata.rule(), "type": "echo", "properties": input}')
    const more = Array.from({ length: 20 }, (_, at) =>
      rule(
        `R-${at + 2}`,
        `warn contains {"rule": rego.metadata.rule(), "message": "no"} if input.action.name == "never-${at}"`,
      ),
    )
    const packs = await compileRego(folder.path, [
      { pack: 'small', layer: 'org', kind: 'guard', rules: says },
      { pack: 'large', layer: 'team', kind: 'guard', rules: [says, ...more].join('\n') },
    ])
    modules = await Promise.all(packs.map(async (pack) => await compileModule(pack.module)))
  })
  afterAll(async () => await folder.remove())

  it('[G-pack-isolated] is to each of them what it had read itself, whatever is in it', () => {
    const reader = made(0)
    const instances = [made(0), made(1)]
    const at = Math.max(...instances.map(({ free }) => free))
    expect(new Set(instances.map(({ free }) => free)).size).toBe(2)
    let shared = 0
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 6 }), (value) => {
        const text = canonical({ value: value as Json })
        if (!mayShare(text)) return
        shared++
        const image = reader.read(encoder.encode(text), at)
        expect(image).not.toBeNull()
        for (const instance of instances) {
          const own = instance.evaluate(bytes(text))
          expect(own).toMatchObject({ ok: true })
          expect(instance.evaluate(bytes(text), image)).toEqual(own)
        }
      }),
      { numRuns: 1000 },
    )
    expect(shared).toBeGreaterThan(200)
  })

  it('is none with a boolean in it, which each module has of its own', () => {
    for (const text of ['{"a":true}', '{"a":[false]}', '{"true":1}', `{"a":"${'x'.repeat(128 * 1024)}"}`])
      expect([text.slice(0, 20), mayShare(text)]).toEqual([text.slice(0, 20), false])
    // What is so, or nothing of this would be needed; where it is not any more the compiler has changed.
    const image = made(0).read(encoder.encode('{"a":false}'), made(1).free)
    expect(made(1).evaluate(bytes('{"a":false}'), image)).toMatchObject({ ok: false })
  })

  it('is read by each of them where it is no JSON, or takes more room than there is', () => {
    const { free } = made(1)
    const lone = '{"a":"\\ud800"}'
    for (const text of ['', '{', lone, '['.repeat(60_000), `[${'[],'.repeat(43_000)}[]]`])
      expect([text.slice(0, 20), made(0).read(encoder.encode(text), free)]).toEqual([text.slice(0, 20), null])
    expect(made(0).read(encoder.encode('{}'), 1 << 30)).toBeNull()
  })

  it('[G-pack-isolated] leaves nothing behind for the next', () => {
    const reader = made(0)
    const instance = made(1)
    const ask = (value: Json): unknown =>
      instance.evaluate(bytes(canonical(value)), reader.read(encoder.encode(canonical(value)), instance.free))
    const small = ask({ a: 1 })
    ask({ secret: 'x'.repeat(50_000), a: Array.from({ length: 500 }, (_, n) => ({ n })) })
    expect(ask({ a: 1 })).toEqual(small)
  })
})
