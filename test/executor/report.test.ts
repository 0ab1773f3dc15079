import { afterAll, expect, test } from 'vitest'
import { Secret } from '../../src/credential/secret.ts'
import { digestOf } from '../../src/digest.ts'
import type { Dispatch, RunEnd } from '../../src/execution/job.ts'
import { createIsolateExecutor } from '../../src/executor/isolate/isolate.ts'
import { runJob } from '../../src/executor/run.ts'
import type { PolicyInput } from '../../src/policy/policy.ts'
import { prepare } from './fixture.ts'

/** What the run host makes of a report before anything of it goes to the broker. */

const executor = createIsolateExecutor({
  env: { PATH: '/usr/bin:/bin', HOME: '/', LANG: 'C.UTF-8' },
  owner: `report${process.pid}`,
})
afterAll(async () => await executor.close())

const secret = 's3cr&t-<value>-01'

async function ran(code: string): Promise<RunEnd> {
  const prepared = prepare({ files: { 'a.js': code }, argv: [['a.js']] })
  const dispatch: Dispatch = {
    job: prepared.job,
    secrets: [Secret.ingest('vault-token', Buffer.from(secret))],
    generation: { number: 1, digest: digestOf('generation'), packs: [] },
    egress_input: { schema: 'writ.input/v1' } as PolicyInput,
  }
  const ports = {
    read: (digest: Parameters<typeof prepared.bytes.get>[0]) =>
      Promise.resolve(prepared.bytes.get(digest) ?? Buffer.alloc(0)),
    started: () => Promise.resolve(),
    output: () => undefined,
    file: () => Promise.resolve(),
    decide: () => Promise.reject(new Error('nothing is asked')),
  }
  return await runJob(dispatch, executor, ports, new AbortController().signal)
}

test('a secret that a report spells in another way is taken out of what is told of it [G-report-redacted]', async () => {
  const xml = secret.replace(/[^a-z0-9]/g, (character) => `&#${character.charCodeAt(0)};`)
  const json = secret.replace(/./g, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`)
  const { tests } = await ran(
    `writ.writeFile('/out/junit.xml', ${JSON.stringify(`<testsuite><testcase name="${xml}"><failure message="got ${xml}"/></testcase></testsuite>`)})
     writ.writeFile('/out/jest.json', ${JSON.stringify(`{"testResults":[{"assertionResults":[{"status":"failed","fullName":"${json}","failureMessages":["${secret.replaceAll('"', '')}"]}]}]}`)})`,
  )
  expect(tests).toMatchObject({ source: 'several', failed: 2 })
  expect(JSON.stringify(tests)).not.toContain('s3cr')
  expect(tests?.failures.map(({ name }) => name)).toEqual(['[REDACTED:vault-token]', '[REDACTED:vault-token]'])
})

test('a report on standard error is none', async () => {
  const { tests } = await ran("console.error('TAP version 13\\nok 1 - a\\n1..1')")
  expect(tests).toBeNull()
})
