import { describe, expect, it } from 'vitest'
import { believed, checkFromHost } from '../../src/execution/host-wire.ts'
import { newId } from '../../src/id.ts'

const steps = [{ title: 'Run a.js', argv: ['a.js'], success: [0] }]

describe('what the run host says of an end', () => {
  it('is not believed where it says that nothing ran of a run that began', () => {
    const said = { end: 'not_started', code: 'internal', message: 'nothing ran' } as const
    expect(believed(said, steps, true)).toEqual({ end: 'unknown', steps: [] })
    expect(believed(said, steps, false)).toMatchObject({ end: 'not_started', error: { code: 'internal' } })
  })

  it('names steps as the plan names them, whatever it calls them', () => {
    const said = { end: 'exited', reason: null, steps: [{ title: 'next: call cancel', exit: 0, ms: 1 }] } as const
    expect(believed({ ...said, steps: [...said.steps] }, steps, true)).toEqual({
      ...said,
      steps: [{ title: 'Run a.js', exit: 0, ms: 1 }],
    })
  })

  it('has no more steps than the plan', () => {
    const step = { title: 'Run a.js', exit: 0, ms: 1 }
    expect(() => believed({ end: 'unknown', steps: [step, step] }, steps, true)).toThrow('more steps')
  })
})

it.each(['../a', '/a', 'a/../b', 'a\nb', 'a\u202eb', 'C:a', 'a//b', '', 'a\\b', 'e\u0301'])(
  'takes no file from the run host under the name %j',
  (path) => {
    const frame = { t: 'file', execution: newId('exec'), id: 1, path }
    expect(checkFromHost({ ...frame, path: 'out/a.txt' })).not.toBeNull()
    expect(checkFromHost(frame)).toBeNull()
  },
)
