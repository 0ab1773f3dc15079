import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { TestContext } from 'vitest'
import type { PlanImage } from '../../src/plan/plan.ts'
import { agentInNamespaces, collect, jobOf, namespacesMissing, prepare, run } from '../executor/docker/agent.ts'
import type { Agent } from '../executor/docker/agent.ts'
import { agentImage, agentInContainer } from '../executor/docker/container.ts'
import { entriesOf } from '../executor/docker/sample.ts'
import { engine } from '../servers/engine.ts'
import type { Engine, Lacking } from '../servers/engine.ts'
import { until } from '../wait.ts'

const forge = readFileSync(join(import.meta.dirname, 'programs/agent/forge.pl'), 'utf8')
const places = ['namespaces', 'runc', 'runsc'] as const
type Place = (typeof places)[number]

let image: (PlanImage & { remove(): Promise<void> }) | null = null
let found: Engine | Lacking
const started: Agent[] = []

beforeAll(async () => {
  found = await engine()
  if (!('lacking' in found)) image = await agentImage(found, 'base:bookworm')
}, 120_000)

afterEach(async () => {
  for (const agent of started.splice(0)) await agent.stop()
})

afterAll(async () => {
  await image?.remove()
})

async function start(place: Place, context: TestContext): Promise<Agent> {
  let agent: Agent
  if (place === 'namespaces') {
    const missing = namespacesMissing()
    if (missing !== null) context.skip(missing)
    agent = await agentInNamespaces()
  } else {
    const has = await engine(place === 'runsc' ? { runsc: true } : {})
    if ('lacking' in has) context.skip(has.lacking)
    if (image === null) throw new Error('the image was not built')
    agent = await agentInContainer(has, image, place === 'runsc' ? 'runsc' : null)
  }
  started.push(agent)
  return agent
}

describe.each(places)('a workload against its agent, in %s', (place) => {
  it(
    'forges no frame, whatever it writes to, opens, traces or signals: exactly what happened is told [G-agent-unforgeable]',
    { timeout: 60_000 },
    async (context) => {
      const agent = await start(place, context)
      await prepare(
        agent,
        jobOf(['cat > /work/forge.pl; exec perl /work/forge.pl', 'echo second; ls /out'], {
          stdin: forge,
          egress: true,
        }),
      )
      const first = await run(agent, 1)
      expect(first).toMatchObject({ step: 1, exit: 7, signal: null, stopped: null })
      expect(await run(agent, 2)).toMatchObject({ step: 2, exit: 0, signal: null, stopped: null })
      const { archive, end } = await collect(agent)
      expect(await entriesOf(archive)).toEqual([['reached', 0o644, '']])
      expect(end).toMatchObject({ files: 1, bytes: 0, left_out: { links: 0, special: 0, names: 0, over_limit: 0 } })
      expect((await agent.ended).code).toBe(0)
      expect(agent.breach).toBeNull()
      // What it forged is output like any other, and there is no frame but those of what happened.
      expect(agent.text('stdout')).toContain('FORGED')
      expect(agent.text('stdout').endsWith('second\nreached\n')).toBe(true)
      const control = agent.frames.filter(({ type }) => type !== 'stdout' && type !== 'stderr' && type !== 'archive')
      expect(control.map(({ type }) => type)).toEqual(['ready', 'prepared', 'exited', 'exited', 'archive_end', 'done'])
    },
  )

  it(
    'cannot be kept from ending with its host by whatever stops processes [G-agent-host-gone] [G-agent-unforgeable]',
    { timeout: 60_000 },
    async (context) => {
      const agent = await start(place, context)
      await prepare(agent, jobOf(['cat > /work/forge.pl; exec perl /work/forge.pl stop'], { stdin: forge }))
      agent.send({ type: 'step', step: 1 })
      await until('it has tried to stop the agent', () => agent.text('stdout').includes('tried'))
      agent.hangUp()
      const end = await Promise.race([agent.ended, pause(10_000, 'it goes on')])
      expect(end).toEqual({ code: 0 })
    },
  )

  it('cannot be made to tell of an end that is none, by a step that asks to be traced [G-agent-unforgeable]', async (context) => {
    const agent = await start(place, context)
    const trace = 'syscall((POSIX::uname())[4] eq "aarch64" ? 117 : 101, 0, 0, 0, 0)'
    const script = `exec perl -MPOSIX -e 'my $me = $$; if (!fork) { sleep 1; kill KILL => $me; exit } ${trace}; kill STOP => $me; sleep 60'`
    await prepare(agent, jobOf([script]))
    expect(await run(agent, 1)).toMatchObject({ exit: null, signal: 9, stopped: null })
    expect(agent.breach).toBeNull()
  })

  it('begins before any other process of its container, with three descriptors', async (context) => {
    const agent = await start(place, context)
    await prepare(
      agent,
      jobOf([
        'echo $$; cd /proc/self/fd && for fd in *; do readlink $fd; done; cat /proc/1/comm; echo score $(cat /proc/self/oom_score_adj) $(cat /proc/1/oom_score_adj)',
      ]),
    )
    await run(agent, 1)
    const lines = agent.text('stdout').trim().split('\n')
    expect(lines.filter((line) => line.startsWith('pipe:')).length).toBe(3)
    expect(lines.filter((line) => !/^(?:pipe:|\d+$|\/proc|writ-agent$|score )/.test(line))).toEqual([])
    // When memory is short a step dies before its agent.
    const score = { namespaces: 'score 1000 0', runc: 'score 1000 500', runsc: 'score 1000 0' }[place]
    expect(lines.at(-1)).toBe(score)
    expect(agent.frames[0]).toMatchObject({ dumpable: false, no_new_privs: true, uid: 65_532 })
  })
})

// Without a container nothing bounds the number of processes; under gVisor the pids that run out are those of its own
// kernel, which then ends with all in it.
describe('a workload that takes every pid', () => {
  it('stops neither its own end nor the next step', { timeout: 60_000 }, async (context) => {
    const agent = await start('runc', context)
    const bomb =
      '$SIG{CHLD} = "IGN"; $| = 1; my $n = 0; while ($n < 5000) { my $p = fork; if (!defined $p) { print "full\n"; last } if (!$p) { sleep 1000; exit } $n++ } print "$n\n"; 1 while 1'
    const job = jobOf([`exec perl -e '${bomb}'`, 'echo fine'])
    await prepare(agent, { ...job, limits: { ...job.limits, cpu_s: 2 } })
    expect(await run(agent, 1)).toMatchObject({ exit: null, signal: 9, stopped: 'cpu' })
    expect(agent.text('stdout')).toMatch(/^full\n\d{2,3}\n$/)
    // Nothing is left of the time: the next step begins, and ends by the same limit if it lives that long.
    expect((await run(agent, 2)).step).toBe(2)
    expect((await collect(agent)).end.files).toBe(0)
    expect(agent.breach).toBeNull()
  })
})

// Without a control group there is no account but the processes themselves.
describe.each(['runc', 'runsc'] as const)('a workload that hides the time of its processes, in %s', (place) => {
  it('is ended by its limit all the same', { timeout: 60_000 }, async (context) => {
    const agent = await start(place, context)
    // Each child is gone before anybody looks, and the kernel reaps it without telling what it used.
    const hide =
      '$SIG{CHLD} = "IGNORE"; for (;;) { my $p = fork; if (defined $p && !$p) { my $i = 0; $i++ while $i < 200000; exit } select undef, undef, undef, 0.005 }'
    const job = jobOf([`exec perl -e '${hide}'`])
    await prepare(agent, { ...job, limits: { ...job.limits, cpu_s: 1 } })
    const end = await run(agent, 1)
    expect(end).toMatchObject({ exit: null, signal: 9, stopped: 'cpu' })
    expect(end.cpu_ms).toBeGreaterThanOrEqual(1000)
  })
})
