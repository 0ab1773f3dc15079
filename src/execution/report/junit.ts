import { openTally } from './report.ts'
import type { Clean, TestReport } from './report.ts'
import type { Work } from './slices.ts'
import { readXml } from './xml.ts'

/** Bytes of a report; a longer one is not read. */
export const maxJunit = 8 * 1024 * 1024

interface Case {
  readonly name: string
  readonly depth: number
  state: 'passed' | 'failed' | 'skipped'
  /** The attribute of the first failure, or the text inside of it. */
  message: string
  /** Depth of the failure whose text is being read; 0 for none. */
  reading: number
}

/**
 * The report in a file of JUnit XML (pytest, Maven, Gradle, vitest, `node --test` and most others write it), or null
 * where it is none. Counts the cases themselves: the sums that a suite claims are not looked at. Never throws.
 */
export function* readJunit(bytes: Uint8Array, clean: Clean): Work<TestReport | null> {
  if (bytes.length > maxJunit) return null
  const text = utf8(bytes)
  if (text === null) return null
  const tally = openTally('junit', clean)
  let lawful = true
  let current: Case | null = null
  const whole = yield* readXml(text, {
    open(name, attributes, depth) {
      if (depth === 1 && name !== 'testsuites' && name !== 'testsuite') lawful = false
      if (name === 'testcase') {
        if (current !== null || depth === 1) lawful = false
        current = { name: titleOf(attributes), depth, state: 'passed', message: '', reading: 0 }
        const time = attributes.get('time')
        if (time !== undefined && /^[0-9]{1,9}(?:\.[0-9]{1,20})?(?:e-[0-9]{1,2})?$/.test(time))
          tally.took(Number(time) * 1000)
      } else if (current !== null && depth === current.depth + 1) {
        if (name === 'skipped' && current.state === 'passed') current.state = 'skipped'
        if ((name === 'failure' || name === 'error') && current.state !== 'failed') {
          current.state = 'failed'
          current.message = attributes.get('message') ?? ''
          if (current.message.trim() === '') current.reading = depth
        }
      }
    },
    text(data) {
      if (current !== null && current.reading > 0) current.message += data
    },
    close(name, depth) {
      if (current === null) return
      if (current.reading === depth) current.reading = 0
      if (name !== 'testcase' || depth !== current.depth) return
      if (current.state === 'failed') tally.fail(current.name, current.message)
      else if (current.state === 'skipped') tally.skip()
      else tally.pass()
      current = null
    },
  })
  return whole && lawful ? yield* tally.report() : null
}

function titleOf(attributes: ReadonlyMap<string, string>): string {
  const name = attributes.get('name') ?? ''
  const group = attributes.get('classname') ?? ''
  return group === '' || name.startsWith(group) ? name : `${group}.${name}`
}

/** The text of strict UTF-8, or null. */
function utf8(bytes: Uint8Array): string | null {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    return null
  }
}
