import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, onTestFinished } from 'vitest'
import { askBroker } from '../../../src/control/control.ts'
import type { Answered } from '../../../src/control/protocol.ts'
import type { JsonObject } from '../../../src/digest.ts'
import { until } from '../../wait.ts'
import { final, type Line, openLine, Unanswered } from '../crash/line.ts'
import { makePlace, type Place, type PlaceOptions } from '../crash/place.ts'
import { alive, brokerOf, kill } from '../crash/processes.ts'
import { viewsAreTheSteps } from '../crash/invariants.ts'

export const whyNoDisk =
  'mounting a small file system needs root: run this test as root, or in a container with CAP_SYS_ADMIN'

export interface Fixture {
  readonly place: Place
  readonly line: Line
}

/** A folder of its own for the tests of one `describe`, taken down however they end. */
export function use(options: PlaceOptions): Fixture {
  const fixture: { place?: Place; line?: Line } = {}
  beforeAll(() => {
    fixture.place = makePlace(options)
    fixture.line = openLine(fixture.place)
  })
  afterAll(async () => {
    const { place, line } = fixture
    line?.close()
    if (place === undefined) return
    const broker = brokerOf(place.configFile)
    place.writ(['stop'])
    if (broker !== null) {
      await until('the broker has ended', () => !alive(broker)).catch(() => undefined)
      kill(broker)
    }
    rmSync(place.root, { recursive: true, force: true })
  })
  return {
    get place() {
      if (fixture.place === undefined) throw new Error('made before the tests')
      return fixture.place
    },
    get line() {
      if (fixture.line === undefined) throw new Error('made before the tests')
      return fixture.line
    },
  }
}

export async function submit(line: Line, content: string, more: JsonObject = {}): Promise<JsonObject> {
  return await line.call('submit_task', {
    project_name: 'faults',
    goal: 'Print a line',
    target_ref: 'sandbox',
    execution_intent: 'run_script',
    inputs: { script: 'main.js' },
    files: [{ path: 'main.js', content }],
    ...more,
  })
}

export async function start(line: Line, content: string, more: JsonObject = {}): Promise<JsonObject> {
  const submitted = await submit(line, content, more)
  if (submitted['task_id'] === undefined) return submitted
  const asks = more['target_ref'] !== undefined
  const started = await line.call('start_execution', { task_id: submitted['task_id'], wait_ms: asks ? 0 : 20_000 })
  if (asks || started['final'] === true || typeof started['execution_id'] !== 'string') return started
  return await final(line, started['execution_id'])
}

/** The whole path once more, and the log from its first entry: nothing was lost and everything works. */
export async function works({ place, line }: Fixture): Promise<void> {
  const ran = await start(line, `console.log('works', ${String(Math.random())})`).catch(async (failure: unknown) => {
    if (!(failure instanceof Unanswered)) throw failure
    return await start(line, `console.log('works', ${String(Math.random())})`)
  })
  expect(ran).toMatchObject({ state: 'succeeded' })
  expect(place.writ(['verify'])).toMatchObject({ code: 0, out: expect.stringMatching(/^VALID:LOGGED/) as string })
  expect(viewsAreTheSteps(place.folder.ledger)).toBe(true)
}

export const status = async (place: Place): Promise<Answered<'status'>> =>
  await askBroker(place.folder.controlSocket, 'status')

export async function stopped({ place, line }: Fixture): Promise<void> {
  // A call on a connection that is just ending would have no answer.
  line.close()
  const broker = brokerOf(place.configFile)
  place.writ(['stop'])
  await until('the broker has ended', () => broker === null || !alive(broker))
}

/** What it returns takes the edit back, as the end of the test does too. */
export function edit(file: string, change: (text: string) => string): () => void {
  const before = readFileSync(file, 'utf8')
  const back = (): void => writeFileSync(file, before)
  onTestFinished(back)
  writeFileSync(file, change(before))
  return back
}

/** A file that is there until the test ends, unless it is removed before. */
export function put(file: string, text: string): void {
  onTestFinished(() => rmSync(file, { force: true }))
  writeFileSync(file, text)
}
