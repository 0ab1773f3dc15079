import { afterAll, describe, expect, it } from 'vitest'
import type { Results } from '../../src/execution/result.ts'
import { alice, openWorld } from './world.ts'

const world = await openWorld({
  targets: `  stepped:
    about: A target whose first step may end with 1
    executor: isolate
    intents: [compare]
`,
  credentials: `
intents:
  compare:
    about: Look for differences, then report
    code_origin: caller
    steps:
      - { title: Look, argv: [look.js], success: [0, 1] }
      - { title: Report, argv: [report.js] }
`,
})
afterAll(async () => await world.broker.stop())

async function ran(report: string): Promise<Results['get_result']> {
  const { task_id = '' } = await world.ask(alice, 'submit_task', {
    project_name: 'p',
    goal: 'g',
    target_ref: 'stepped',
    execution_intent: 'compare',
    files: [
      { path: 'look.js', content: "console.log('differs')\nwrit.exit(1)" },
      { path: 'report.js', content: `console.log('reporting')\n${report}` },
    ],
  })
  const { execution_id = '' } = await world.ask(alice, 'start_execution', { task_id, wait_ms: 20_000 })
  return await world.ask(alice, 'get_result', { execution_id })
}

describe('the tail of an output', () => {
  it('is of the step that failed, not of one before it whose exit counts as success', async () => {
    expect(await ran('writ.exit(2)')).toMatchObject({ state: 'failed', tail: 'reporting\n' })
  })

  it('is of the whole where none failed', async () => {
    expect(await ran('')).toMatchObject({ state: 'succeeded', tail: 'differs\nreporting\n' })
  })
})
