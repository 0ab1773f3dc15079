import { appendFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import { agentDigests } from '../../src/executor/docker/binary.ts'
import { engine, newerEngine } from '../servers/engine.ts'
import { useWorld } from './world.ts'
import type { World } from './world.ts'

vi.setConfig({ testTimeout: 120_000 })

/** `docker.strict`, by the command line: an engine of the day with user namespaces is taken, Debian's old one refused. */

const target = `  strangers:
    about: Code nobody has read
    labels: { env: sandbox }
    executor: docker
    image: writ/python
    intents: [run_script]
    runtimes: [python]
`

function strict(world: World, host: string): void {
  appendFileSync(join(world.folder, 'writ.yaml'), `\ndocker: { host: "${host}", strict: true }\n`)
  world.addTarget(target)
  writeFileSync(join(world.folder, 'a.py'), "print('mapped', *open('/proc/self/uid_map').read().split())\n")
}

/** What doctor says in the section of that name, without its advice. */
function said(world: World, section: string): readonly string[] {
  const lines = world.writ(['doctor']).out.split('\n')
  const from = lines.indexOf(section) + 1
  const end = lines.findIndex((line, at) => at >= from && !line.startsWith('  '))
  return lines.slice(from, end).filter((line) => /^ {2}\S/.test(line))
}

const run = ['run', 'strangers', '--intent', 'run_script', 'a.py']

describe('where settings are strict, an engine without known holes', async () => {
  const found = await newerEngine()
  const world = useWorld()
  if (!('lacking' in found)) strict(world, found.host)

  it('is all well for doctor', (ctx) => {
    if ('lacking' in found) return ctx.skip(found.lacking)
    expect(said(world, 'executor docker')).toEqual([
      expect.stringMatching(/^ {2}ok {7}containers run in Docker Engine (?:29|[3-9]\d)\.\d+\.\d+, with runc/),
    ])
    expect(said(world, 'targets')).toEqual(['  ok       all 3 can be run on'])
  })

  it('has images whose agent is read and matches, though what it tells of owners is another machine’s', (ctx) => {
    if ('lacking' in found) return ctx.skip(found.lacking)
    const agent = agentDigests().amd64.slice(0, 'sha256:'.length + 12)
    expect(world.writ(['images', 'verify', 'writ/base', 'writ/python'])).toMatchObject({
      code: 0,
      out: `ok      writ/base  agent ${agent}\nok      writ/python  agent ${agent}\n`,
    })
  })

  it('runs work, with root of the container nobody on the machine, and the receipt says in what', (ctx) => {
    if ('lacking' in found) return ctx.skip(found.lacking)
    const ran = world.writ(run)
    expect(ran).toMatchObject({ code: 0, err: expect.stringContaining('mapped 0 231072 65536\n') as string })
    const [execution = ''] = /exec_\w+/.exec(ran.out) ?? []
    expect(JSON.stringify(world.json(['executions', 'show', execution]))).toContain('"container"')
  })
})

describe('where settings are strict, an engine with known holes', async () => {
  const found = await engine({ images: ['writ/python:latest'] })
  const world = useWorld()
  if (!('lacking' in found)) strict(world, found.host)

  it('is refused: doctor says each of them, and nothing runs in it', (ctx) => {
    if ('lacking' in found) return ctx.skip(found.lacking)
    const problems = said(world, 'executor docker').filter((line) => !line.startsWith('  ok'))
    // Which it has is the machine's; Debian's has all three.
    if (problems.length === 0)
      return ctx.skip(`the Docker Engine at ${found.host} has no hole: give another in WRIT_TEST_DOCKER`)
    expect(problems.filter((line) => !line.startsWith('  PROBLEM  '))).toEqual([])
    expect(world.writ(run)).toMatchObject({
      code: 1,
      out: expect.stringContaining('target "strangers": it is not available now') as string,
    })
  })
})
