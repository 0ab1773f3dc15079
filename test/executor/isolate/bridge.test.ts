import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { openBridge, outputName } from '../../../src/executor/isolate/bridge.ts'
import { callBytes, callQuota, maxPayload } from '../../../src/executor/isolate/wire.ts'
import { safePath } from '../../../src/executor/sinks.ts'

function open(limit = 1024) {
  const events: string[] = []
  const note =
    (name: string) =>
    (...values: readonly unknown[]) =>
      void events.push([name, ...values].map(String).join(' '))
  const outputs = new Map<string, Buffer>()
  const bridge = openBridge(
    {
      print: note('print'),
      congested: false,
      fetch: note('fetch'),
      unfetch: note('unfetch'),
      wake: note('wake'),
      exit: note('exit'),
      done: note('done'),
      exhausted: note('exhausted'),
    },
    outputs,
    { outputs: limit },
  )
  return { bridge, events, outputs }
}

describe('the bridge', () => {
  test.each([
    ['a number', 1, ''],
    ['an object that turns into text', { toString: (): string => 'exit' }, '1'],
    ['undefined', undefined, undefined],
    ['text that is an object', 'stdout', { toString: (): string => 'x' }],
    ['an array', ['stdout'], ['x']],
    ['a boxed string', new String('exit'), '0'],
  ])('refuses %s before it looks at it', (_name, op, text) => {
    const { bridge, events } = open()
    expect(bridge.call(op, text)).toBe('refused')
    expect(events).toEqual([])
  })

  test('is exhausted by one text over the size, and takes nothing after', () => {
    const { bridge, events } = open()
    expect(bridge.call('stdout', 'x'.repeat(callBytes + 1))).toBe('refused')
    expect(bridge.call('stdout', 'x')).toBe('refused')
    expect(events).toEqual(['exhausted'])
  })

  test('is exhausted by one call over the count', () => {
    const { bridge, events } = open()
    for (let at = 0; at < callQuota; at++) bridge.call('untimer', '{}')
    expect(events).toEqual([])
    bridge.call('untimer', '{}')
    expect(events).toEqual(['exhausted'])
  })

  test('answers text to every operation and every text, and never throws', () => {
    const operations = fc.oneof(
      fc.constantFrom(
        'stdout',
        'write',
        'bytes',
        'digest',
        'random',
        'url',
        'untimer',
        'fetch',
        'unfetch',
        'exit',
        'done',
        '__proto__',
        'constructor',
      ),
      fc.string(),
    )
    const texts = fc.oneof(
      fc.string(),
      fc.json(),
      fc.constantFrom('null', '[]', '{"id":1,"url":{},"method":[],"headers":{}}', '{"input":"http://[","base":1}'),
    )
    fc.assert(
      fc.property(operations, texts, (op, text) => {
        expect(open().bridge.call(op, text)).toBeTypeOf('string')
      }),
      { numRuns: 500 },
    )
  })

  test('an output is no larger than a frame that carries it', () => {
    const { bridge, outputs } = open(maxPayload * 2)
    const part = 'x'.repeat(callBytes)
    for (let size = 0; size < maxPayload; size += callBytes) bridge.call('bytes', part)
    bridge.call('bytes', 'x')
    expect(bridge.call('write', '/out/a')).toBe('an output may hold 65536 KB')
    expect(outputs.size).toBe(0)
  })

  test('an output stays under /out, whatever its path', () => {
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom('/', '..', '.', 'out', 'a', '\0', '\\', '\n', 'é', '\ud800'), { maxLength: 8 }),
        (parts) => {
          const name = outputName(parts.join(''))
          return name === null || safePath(name) === name
        },
      ),
    )
    expect(outputName('/out/a/b.txt')).toBe('a/b.txt')
    for (const bad of [
      '/out',
      '/out/',
      'out/a',
      '/etc/a',
      '/out//a',
      '/out/./a',
      '/out/../a',
      '/out/a/',
      `/out/${'x'.repeat(600)}`,
    ])
      expect(outputName(bad)).toBeNull()
  })
})
