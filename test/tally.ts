import { writeFileSync } from 'node:fs'
import type { Reporter, TestModule } from 'vitest/node'

/** Counts the tests, names those that passed only when tried again with what failed at first, and keeps the sentence each skip gives, for the last line of `npm test`. */
const tally: Reporter = {
  onTestRunEnd(modules: readonly TestModule[]) {
    let passed = 0
    let failed = 0
    const again: { title: string; why: string }[] = []
    const skipped: { title: string; why: string }[] = []
    for (const module of modules) {
      failed += module.errors().length
      for (const test of module.children.allTests()) {
        const result = test.result()
        if (result.state === 'passed') {
          passed++
          const [first] = result.errors ?? []
          if (test.diagnostic()?.flaky === true)
            again.push({
              title: test.fullName,
              why: (first?.stack ?? first?.message ?? 'no error was kept').slice(0, 600),
            })
        } else if (result.state === 'failed') failed++
        else skipped.push({ title: test.fullName, why: ('note' in result && result.note) || 'no reason was given' })
      }
    }
    const file = process.env['WRIT_TALLY']
    if (file !== undefined) writeFileSync(file, JSON.stringify({ passed, failed, skipped, again }))
  },
}

export default tally
