import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { readMessage, requestMethods } from '../../src/mcp/message.ts'
import { maxMessageBytes, openIdFinder } from '../../src/mcp/request-id.ts'

const read = (text: string) => readMessage(Buffer.from(text))
const request = (rest: string) => read(`{"jsonrpc":"2.0","id":1,${rest}}`)

describe('a message', () => {
  test.each([
    ['two ids', '{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}'],
    ['the same id twice', '{"jsonrpc":"2.0","id":1,"id":1,"method":"ping"}'],
    ['a second id spelled with an escape', '{"jsonrpc":"2.0","id":1,"method":"ping","\\u0069d":2}'],
    ['an escaped lone surrogate in its id', '{"jsonrpc":"2.0","id":"\\ud800","method":"ping"}'],
    ['an id beyond 2^53', '{"jsonrpc":"2.0","id":9007199254740993,"method":"ping"}'],
    ['an id that is an object', '{"jsonrpc":"2.0","id":{"id":1,"id":2},"method":"ping"}'],
    ['a byte order mark', '\ufeff{"jsonrpc":"2.0","id":1,"method":"ping"}'],
    ['a comment', '{"jsonrpc":"2.0",/* "id":2, */"id":1,"method":"ping"}'],
    ['a half message', '{"jsonrpc":"2.0","id":1,"method":"ping",'],
    ['more behind it', '{"jsonrpc":"2.0","id":1,"method":"ping"}{"id":2}'],
    ['an id in its parameters only', '{"jsonrpc":"2.0","method":"ping","params":{"id":1,"a":1,"a":2}}'],
    ['an id in a list', '[{"jsonrpc":"2.0","id":1,"method":"ping","method":"ping"},]'],
    ['the shape of an answer', '{"jsonrpc":"2.0","id":1,"result":{"a":1,"a":2}}'],
    ['nothing but text', 'GET / HTTP/1.1'],
  ])('with %s is malformed, with a null id', (_what, text) => {
    expect(read(text)).toMatchObject({ kind: 'malformed', id: null, number: -32700 })
  })

  test.each([
    ['a duplicate key', '1', '"id":1,"method":"ping","method":"ping"'],
    ['a duplicate key deep inside', '"a b"', '"method":"ping","params":{"a":{"id":3,"id":4}},"id":"a b"'],
    ['an id spelled with escapes', '"\\"\\u0031"', '"\\u0069d":"\\"\\u0031","method":"ping","x":1,"x":2'],
    ['an escaped lone surrogate', '-7', '"id" : -7 ,"method":"ping","params":{"a":"\\ud800"}'],
    ['depth 65', '0', `"method":"ping","params":{"a":${'['.repeat(64)}${']'.repeat(64)}},"id":0`],
    ['an integer beyond 2^53', '1', '"id":1,"method":"ping","params":{"a":9007199254740993}'],
    ['a member named __proto__', '1', '"id":1,"method":"ping","params":{"__proto__":{"id":2}}'],
    ['a raw control character', '1', '"id":1,"method":"ping","params":{"a":"\u0001"}'],
    ['a value that is none', '1', '"id":1,"params":{"a":},"method":"ping"'],
    ['quotes and braces in its text', '1', '"method":"ping","params":{"a":"\\"},\\"id\\":2,{\\\\","a":1},"id":1'],
  ])('with %s is malformed, and answered under its one id', (_what, id, rest) => {
    expect(read(`{"jsonrpc":"2.0",${rest}}`)).toMatchObject({
      kind: 'malformed',
      id: JSON.parse(id) as unknown,
      number: -32700,
    })
  })

  test('has the same id for the finder as for the parser, whatever it is, in whatever pieces it comes', () => {
    fc.assert(
      fc.property(
        fc.oneof(fc.string({ maxLength: 20 }), fc.maxSafeInteger()),
        fc.jsonValue(),
        fc.boolean(),
        fc.integer({ min: 1, max: 9 }),
        (id, params, first, step) => {
          fc.pre(typeof id === 'number' || id.isWellFormed())
          const message = first ? { id, method: 'ping', params } : { method: 'ping', params, id }
          const bytes = Buffer.from(JSON.stringify(message))
          const finder = openIdFinder()
          for (let at = 0; at < bytes.length; at += step) finder.feed(bytes.subarray(at, at + step))
          expect(finder.found()).toBe(id)
        },
      ),
    )
  })

  test('of bytes that are not UTF-8 is malformed', () => {
    const bytes = Buffer.concat([
      Buffer.from('{"jsonrpc":"2.0","id":"'),
      Buffer.from([0xc3, 0x28]),
      Buffer.from('","method":"ping"}'),
    ])
    expect(readMessage(bytes)).toMatchObject({ kind: 'malformed', number: -32700 })
  })

  test('of depth 64 is read', () => {
    const arrays = `${'['.repeat(61)}${']'.repeat(61)}`
    expect(request(`"method":"tools/call","params":{"name":"x","arguments":{"a":${arrays}}}`)).toMatchObject({
      kind: 'request',
    })
  })

  test('longer than 4 MiB is malformed even when its line ends', () => {
    const text = `{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":{"pad":"${'x'.repeat(maxMessageBytes)}"}}}`
    expect(read(text)).toMatchObject({ kind: 'malformed', id: 1, number: -32700 })
  })

  test.each([
    ['an array of messages', '[{"jsonrpc":"2.0","id":1,"method":"ping"}]', null],
    ['an empty array', '[]', null],
    ['a string', '"ping"', null],
    ['null', 'null', null],
    ['no method', '{"jsonrpc":"2.0","id":1}', 1],
    ['another version', '{"jsonrpc":"1.0","id":1,"method":"ping"}', 1],
    ['no version', '{"id":1,"method":"ping"}', 1],
    ['an unknown member', '{"jsonrpc":"2.0","id":1,"method":"ping","auth":"me"}', 1],
    ['a method that is not a string', '{"jsonrpc":"2.0","id":1,"method":7}', 1],
    ['parameters in an array', '{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}', 1],
  ])('that is or has %s is an invalid request', (_what, text, id) => {
    expect(read(text)).toMatchObject({ kind: 'malformed', id, number: -32600 })
  })

  test.each(['null', 'true', '1.5', '[]', '{}', `"${'x'.repeat(129)}"`])(
    'with the id %s is an invalid request',
    (id) => {
      expect(read(`{"jsonrpc":"2.0","id":${id},"method":"ping"}`)).toMatchObject({
        kind: 'malformed',
        id: null,
        number: -32600,
      })
    },
  )

  test.each(['1', '0', '-7', '9007199254740991', '"a"', '""', `"${'x'.repeat(128)}"`])(
    'with the id %s is read',
    (id) => {
      expect(read(`{"jsonrpc":"2.0","id":${id},"method":"ping"}`)).toMatchObject({
        kind: 'request',
        id: JSON.parse(id) as unknown,
      })
    },
  )

  test.each([
    'subscriptions/listen',
    'prompts/list',
    'logging/setLevel',
    'resources/subscribe',
    'tasks/get',
    'sampling/createMessage',
    'constructor',
    '__proto__',
    '',
  ])('for the method "%s" is outside the closed list', (method) => {
    expect(request(`"method":${JSON.stringify(method)}`)).toMatchObject({ kind: 'malformed', id: 1, number: -32601 })
  })

  test('for a notification outside the closed list, and any response, is dropped', () => {
    expect(read('{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}')).toEqual({ kind: 'ignored' })
    expect(read('{"jsonrpc":"2.0","method":"tools/call","params":{"name":"list_targets"}}')).toEqual({
      kind: 'ignored',
    })
    expect(read('{"jsonrpc":"2.0","id":1,"result":{}}')).toEqual({ kind: 'ignored' })
    expect(read('{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x"}}')).toEqual({ kind: 'ignored' })
  })

  test.each([
    ['a tool call without a name', '"method":"tools/call","params":{}'],
    ['a tool call whose name is a number', '"method":"tools/call","params":{"name":1}'],
    ['arguments in an array', '"method":"tools/call","params":{"name":"x","arguments":[]}'],
    ['arguments of null', '"method":"tools/call","params":{"name":"x","arguments":null}'],
    ['a resource without a URI', '"method":"resources/read","params":{}'],
    ['a cursor nobody gave', '"method":"tools/list","params":{"cursor":"x"}'],
    ['a progress token in an object', '"method":"ping","params":{"_meta":{"progressToken":{}}}'],
    ['a related task that is none', '"method":"ping","params":{"_meta":{"io.modelcontextprotocol/related-task":7}}'],
    ['a _meta that is a list', '"method":"ping","params":{"_meta":[]}'],
    [
      'an initialize without a client',
      '"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{}}',
    ],
  ])('with %s has invalid parameters', (_what, rest) => {
    expect(request(rest)).toMatchObject({ kind: 'malformed', id: 1, number: -32602 })
  })

  test('is classified as its tool, with its arguments', () => {
    expect(
      request('"method":"tools/call","params":{"name":"get_status","arguments":{"task_id":"t"},"task":{"ttl":1}}'),
    ).toMatchObject({
      kind: 'request',
      message: { name: 'get_status', arguments: { task_id: 't' } },
      forward: { params: { name: 'get_status', arguments: { task_id: 't' } } },
    })
  })

  test('passes on no parameter that its method is not known to have', () => {
    const inbound = request(
      '"method":"tools/call","params":{"name":"get_status","arguments":{},"requestState":"x","inputResponses":{}}',
    )
    expect(inbound.kind === 'request' && Object.keys(inbound.forward['params'] ?? {})).toEqual(['name', 'arguments'])
  })

  test("takes the client's account of itself as harmless text only", () => {
    const meta =
      '{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"a\\u001b[2J\\u202eb","version":"1"}}'
    expect(request(`"method":"ping","params":{"_meta":${meta}}`)).toMatchObject({
      stateless: true,
      asserted: { client: 'a\\u{1b}[2J\\u{202e}b', version: '1' },
    })
  })

  test('never throws and never repeats a value it was sent, whatever the bytes', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.uint8Array({ maxLength: 200 }),
          fc.json().map((text) => Buffer.from(text)),
        ),
        (bytes) => {
          const inbound = readMessage(bytes)
          expect(['request', 'notification', 'ignored', 'malformed']).toContain(inbound.kind)
        },
      ),
      { numRuns: 2000 },
    )
  })

  test('lists exactly the methods of the contract', () => {
    expect([...requestMethods].sort()).toEqual([
      'initialize',
      'ping',
      'resources/list',
      'resources/read',
      'resources/templates/list',
      'server/discover',
      'tools/call',
      'tools/list',
    ])
  })
})
