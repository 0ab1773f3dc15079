// Writes test/vectors/opa/cases.json from OPA's own conformance cases, where the Go module cache has them: those that need
// no data document and compile with the built-ins policies may use. usage: node tools/vendor-opa-cases.mjs MODULE-FOLDER
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseAllDocuments } from 'yaml'
import { canonical } from '../src/digest.ts'
import { ask } from '../src/policy/tools-process.ts'
import { requestOf } from '../test/policy/fixtures/opa-cases.ts'

const [, , opa] = process.argv
if (opa === undefined) throw new Error('usage: node tools/vendor-opa-cases.mjs MODULE-FOLDER')
const root = join(opa, 'v1', 'test', 'cases', 'testdata', 'v1')
const found = []
for (const folder of readdirSync(root).sort()) {
  for (const name of readdirSync(join(root, folder))
    .filter((one) => one.endsWith('.yaml'))
    .sort()) {
    const text = readFileSync(join(root, folder, name), 'utf8')
    for (const document of parseAllDocuments(text)) {
      const { cases = [] } = document.toJS() ?? {}
      for (const raw of cases) {
        const rule = /^data\.generated\.(\w+) = x$/.exec(raw.query ?? '')?.[1]
        const results = raw.want_result ?? null
        if (rule === undefined || results === null || raw.want_error !== undefined || raw.want_error_code !== undefined)
          continue
        if (raw.data !== undefined && canonical(raw.data) !== '{}') continue
        const modules = raw.modules ?? []
        if (modules.length === 0 || raw.input_term !== undefined || raw.ignore_generated === true) continue
        if (
          !modules.every((module) => /^\s*package generated\b/m.test(module) && !/\bdata\.(?!generated\b)/.test(module))
        )
          continue
        const values = results.map((binding) => binding.x)
        if (values.some((value) => value === undefined)) continue
        found.push({
          note: raw.note,
          rule,
          modules,
          input: raw.input ?? null,
          want: values,
        })
      }
    }
  }
}
// Each by itself, so that one that needs more than policies have takes no other with it.
const answers = await ask(
  found.map((one) => requestOf([one])),
  { cacheDir: join(tmpdir(), 'writ-opa-cases') },
  true,
)
const kept = found.filter((_, at) => {
  const answer = answers[at]
  return answer !== undefined && 'reply' in answer && answer.reply.module !== undefined
})
const lines = kept.map((one) => JSON.stringify(one))
writeFileSync(join(import.meta.dirname, '..', 'test', 'vectors', 'opa', 'cases.json'), `[\n${lines.join(',\n')}\n]\n`)
console.log(`${kept.length} of ${found.length} cases without data`)
