import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, expect } from 'vitest'
import { askBroker } from '../../../src/control/control.ts'
import type { JsonObject } from '../../../src/digest.ts'
import { type Line, openLine, Unanswered } from '../crash/line.ts'
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
      await until(() => !alive(broker)).catch(() => undefined)
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
  return await line.call('start_execution', {
    task_id: submitted['task_id'],
    wait_ms: more['target_ref'] === undefined ? 20_000 : 0,
  })
}

export async function final(line: Line, execution: string): Promise<JsonObject> {
  for (const end = performance.now() + 30_000; performance.now() < end;) {
    const status = await line.call('get_status', { execution_id: execution, wait_ms: 2000 })
    if (status['final'] === true) return status
  }
  throw new Error(`${execution} did not end`)
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

export async function until(look: () => boolean | Promise<boolean>): Promise<void> {
  for (const end = performance.now() + 10_000; performance.now() < end; await pause(50)) if (await look()) return
  throw new Error('it did not come to be')
}

export const status = async (place: Place): Promise<JsonObject> => await askBroker(place.folder.controlSocket, 'status')

export async function stopped({ place, line }: Fixture): Promise<void> {
  // A call on a connection that is just ending would have no answer.
  line.close()
  const broker = brokerOf(place.configFile)
  place.writ(['stop'])
  await until(() => broker === null || !alive(broker))
}

export function edit(file: string, change: (text: string) => string): () => void {
  const before = readFileSync(file, 'utf8')
  writeFileSync(file, change(before))
  return () => writeFileSync(file, before)
}
