import { Ajv2020 } from 'ajv/dist/2020.js'
import { describe, expect, test } from 'vitest'
import type { JsonObject } from '../../src/digest.ts'
import { checkArguments, toolListing } from '../../src/mcp/tools.ts'
import { instructions } from '../../src/mcp/server.ts'
import { toolNames } from '../../src/request/call.ts'
import type { ToolName } from '../../src/request/call.ts'

const task = { project_name: 'p', goal: 'g', target_ref: 'sandbox', execution_intent: 'run_script' }

function refusal(tool: ToolName, args: JsonObject): string {
  const checked = checkArguments(tool, args)
  return checked.ok ? '' : checked.message
}

describe('the list of tools', () => {
  test('costs a model at most 2,000 tokens: 7,600 bytes', () => {
    expect(Buffer.byteLength(JSON.stringify({ tools: toolListing }))).toBeLessThanOrEqual(7600)
  })

  test('has the eight tools, with flat schemas', () => {
    expect(toolListing.map((tool) => tool.name)).toEqual([...toolNames])
    for (const { inputSchema, outputSchema } of toolListing) {
      for (const schema of [inputSchema, outputSchema]) {
        expect(schema.type).toBe('object')
        expect(Object.keys(schema)).not.toEqual(expect.arrayContaining(['anyOf']))
        expect(JSON.stringify(schema)).not.toMatch(/"(anyOf|oneOf|allOf|\$ref|\$defs|\$schema)"/)
      }
      expect(inputSchema['additionalProperties']).toBe(false)
      expect(outputSchema['properties']).toMatchObject({ error: { type: 'object' }, next: { type: 'object' } })
      expect(outputSchema['required'] ?? []).toEqual([])
    }
  })

  test('advertises schemas that accept what the tool accepts', () => {
    const ajv = new Ajv2020()
    const submit = toolListing.find((tool) => tool.name === 'submit_task')?.inputSchema ?? {}
    const check = ajv.compile({ ...submit })
    const args = {
      ...task,
      inputs: { args: ['a', { deep: [1, null] }] },
      files: [{ path: 'a.js', edits: [{ old: 'a', new: '' }] }],
      constraints: { time_s: 3 },
    }
    expect(check(args)).toBe(true)
    expect(checkArguments('submit_task', args)).toMatchObject({ ok: true, value: args })
  })

  test('comes with instructions of at most 600 bytes', () => {
    expect(Buffer.byteLength(instructions)).toBeLessThanOrEqual(600)
  })
})

describe('an argument error', () => {
  test.each<[string, ToolName, JsonObject, string]>([
    ['names a missing field', 'start_execution', {}, '"task_id" is missing: a string.'],
    ['names the field of the wrong type', 'get_status', { wait_ms: '5' }, '"wait_ms" must be a number.'],
    [
      'names the nearest known field',
      'get_status',
      { executionid: 'x' },
      'unknown field "executionid"; did you mean "execution_id"?',
    ],
    [
      'names the known fields where none is near',
      'cancel_execution',
      { execution_id: 'x', zzzz: 1 },
      'unknown field "zzzz"; known are execution_id, reason.',
    ],
    [
      'names the place of a nested field',
      'submit_task',
      { ...task, files: [{ path: 'a', contents: '' }] },
      'unknown field "contents" in "files[0]"; did you mean "content"?; "files[0]" must have exactly one of "content", "content_base64", "edits".',
    ],
    [
      'names the words there are',
      'respond_to_approval',
      { approval_id: 'a', plan_digest: 'b', verdict: 'yes', reason: 'r' },
      '"verdict" must be one of approve, reject.',
    ],
    ['names the most there may be', 'get_status', { wait_ms: 60_000 }, '"wait_ms" must be at most 50000.'],
    ['names an empty field', 'get_result', { execution_id: '' }, '"execution_id" must not be empty.'],
    [
      'names a field too long',
      'submit_task',
      { ...task, context: 'x'.repeat(4097) },
      '"context" is too long: at most 4096 characters.',
    ],
    ['refuses a fraction for an integer', 'get_status', { wait_ms: 1.5 }, '"wait_ms" must be an integer.'],
    [
      'refuses two ways of giving one file',
      'upload_artifact',
      { task_id: 't', files: [{ path: 'a', content: '', content_base64: '' }] },
      '"files[0]" must have exactly one of "content", "content_base64", "edits".',
    ],
  ])('%s', (_what, tool, args, message) => {
    expect(refusal(tool, args)).toBe(message)
  })

  test('repeats no value, for one may be a secret sent by mistake', () => {
    const secret = 'hunter2-hunter2'
    for (const tool of toolNames) {
      const wrong = refusal(tool, {
        task_id: [secret],
        execution_id: [secret],
        target_ref: [secret],
        approval_id: [secret],
        verdict: secret,
        cursor: { a: secret },
      })
      expect(wrong).not.toBe('')
      expect(wrong).not.toContain(secret)
    }
  })

  test('shows a field name made of control characters harmlessly', () => {
    expect(refusal('get_status', { '\u001b[2J\u202e': 1 })).toContain('"\\u{1b}[2J\\u{202e}"')
  })

  test('finds no field in what objects inherit', () => {
    for (const name of ['constructor', 'toString', 'hasOwnProperty'])
      expect(refusal('get_status', { [name]: 1 })).toContain(`unknown field "${name}"`)
  })
})
