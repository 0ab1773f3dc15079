import { describe, expect, test } from 'vitest'
import { newId } from '../../src/id.ts'
import type { Arguments } from '../../src/request/call.ts'
import type { Caller } from '../../src/request/caller.ts'
import { newTask, reviseTask } from '../../src/request/submit.ts'

const caller: Caller = {
  tenant: 'default',
  subject: { type: 'user', id: 'alice' },
  roles: ['developer'],
  agent: { id: 'ci', asserted: { client: 'x', version: '1' } },
  auth: { method: 'socket', atMs: 0, shown: null },
}
const args: Arguments['submit_task'] = {
  project_name: 'P',
  goal: 'do it',
  target_ref: 'sandbox',
  execution_intent: 'run_script',
}
const made = () => ({ id: newId('task'), nowMs: 5, files: [] })

describe('a submitted task', () => {
  test('belongs to the caller, whatever the arguments say', () => {
    const claimed = { ...args, owner: 'eve', tenant: 'other', id: 'task_x' } as Arguments['submit_task']
    const task = newTask(caller, claimed, made())
    expect(task).toMatchObject({
      owner: 'alice',
      agent: 'ci',
      tenant: 'default',
      revision: 1,
      created_at_ms: 5,
      inputs: {},
      context: '',
      constraints: { time_s: null, memory_mb: null },
    })
    expect(Object.keys(task)).not.toContain('execution_intent')
  })

  test('is revised into the next revision, and the former one stays as it was', () => {
    const task = newTask(caller, args, made())
    const next = reviseTask(task, [])
    expect(next.revision).toBe(2)
    expect(task.revision).toBe(1)
    expect(next.id).toBe(task.id)
  })

  test.each([
    [{ project_name: '' }, 'project_name'],
    [{ project_name: 'a\nb' }, 'project_name'],
    [{ project_name: 'x'.repeat(101) }, 'project_name'],
    [{ goal: ' ' }, 'goal'],
    [{ goal: '\ud800' }, 'goal'],
    [{ goal: 'é'.repeat(2049) }, 'goal'],
    [{ context: 'x'.repeat(4097) }, 'context'],
    [{ context: 'a\0b' }, 'context'],
    [{ target_ref: '' }, 'target_ref'],
    [{ target_ref: 'a\u2028b' }, 'target_ref'],
    [{ execution_intent: 'x'.repeat(64) }, 'execution_intent'],
    [{ inputs: { a: 'x'.repeat(70_000) } }, 'inputs'],
    [{ constraints: { time_s: 0 } }, 'constraints.time_s'],
    [{ constraints: { time_s: -1 } }, 'constraints.time_s'],
    [{ constraints: { memory_mb: 1.5 } }, 'constraints.memory_mb'],
    [{ constraints: { memory_mb: Number.NaN } }, 'constraints.memory_mb'],
  ])('refuses %j, naming the field', (given, field) => {
    expect(() => newTask(caller, { ...args, ...given }, made())).toThrow(`"${field}" `)
  })
})
