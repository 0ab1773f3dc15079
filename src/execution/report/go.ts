import type { Json, JsonObject } from '../../digest.ts'
import { parseIJson } from '../../json.ts'
import { openTally } from './report.ts'
import type { Clean } from './report.ts'
import type { LineReader } from './tap.ts'
import { atOnce } from './slices.ts'

/** Tests whose output or subtests are remembered at once; of more, messages are left out. */
const maxLive = 1000
/** Characters of a test's output that are kept; events beyond are left out whole. */
const maxKept = 8192

/**
 * The events of `go test -json`, one a line (`go doc test2json`); other lines are passed over. Subtests are counted
 * instead of their parents, and a package that fails without a failed test (it did not build, it panicked) as one.
 */
export function openGo(clean: Clean): LineReader {
  const tally = openTally('go', clean)
  const printed = new Map<string, string>()
  /** Tests with subtests: whether one of these failed. */
  const parents = new Map<string, boolean>()
  const failedIn = new Set<string>()
  let ended = 0

  function say(of: string, text: string): void {
    const before = printed.get(of)
    if (before === undefined && printed.size >= maxLive) return
    if ((before ?? '').length + text.length <= maxKept) printed.set(of, (before ?? '') + text)
  }
  function take(action: 'pass' | 'fail' | 'skip', pack: string, test: string): void {
    const key = `${pack}\n${test}`
    const message = printed.get(key) ?? ''
    printed.delete(key)
    const failedBelow = parents.get(key)
    parents.delete(key)
    const slash = test.lastIndexOf('/')
    if (slash > 0) {
      const parent = `${pack}\n${test.slice(0, slash)}`
      if (parents.has(parent) || parents.size < maxLive)
        parents.set(parent, parents.get(parent) === true || action === 'fail')
    }
    if (action === 'fail' && failedIn.size < maxLive) failedIn.add(pack)
    if (failedBelow === true || (failedBelow === false && action !== 'fail')) return
    if (action === 'pass') tally.pass()
    else if (action === 'skip') tally.skip()
    else tally.fail(test, essence(message))
  }

  return {
    line(line) {
      if (!line.startsWith('{')) return
      const event = parsed(line)
      const action = event?.['Action']
      if (event === null || typeof action !== 'string') return
      const pack = text(event['Package']) ?? text(event['ImportPath'])
      if (pack === null) return
      const test = text(event['Test'])
      if (action === 'output' || action === 'build-output') {
        const said = text(event['Output'])
        if (said !== null) say(test === null ? `${pack}\n` : `${pack}\n${test}`, said)
        return
      }
      if (action !== 'pass' && action !== 'fail' && action !== 'skip') return
      ended++
      if (test !== null) return take(action, pack, test)
      const elapsed = event['Elapsed']
      if (typeof elapsed === 'number') tally.took(elapsed * 1000)
      const broken = text(event['FailedBuild']) ?? pack
      if (action === 'fail' && !failedIn.has(pack))
        tally.fail(pack, essence((printed.get(`${broken}\n`) ?? '') || (printed.get(`${pack}\n`) ?? '')))
      printed.delete(`${pack}\n`)
      failedIn.delete(pack)
    },
    end: () => (ended === 0 ? null : atOnce(tally.report())),
  }
}

/** What a test printed, without the tool's own lines about it. */
function essence(output: string): string {
  return output
    .split('\n')
    .filter((line) => !/^\s*(?:=== |--- |FAIL\b|PASS\b|# |exit status )/.test(line))
    .map((line) => line.trim())
    .filter((line) => line !== '')
    .join('\n')
}

function parsed(line: string): JsonObject | null {
  try {
    const value = parseIJson(line, { maxDepth: 4 })
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as JsonObject) : null
  } catch {
    return null
  }
}

function text(value: Json | undefined): string | null {
  return typeof value === 'string' && value !== '' ? value : null
}
