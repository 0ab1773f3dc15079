import { setTimeout as pause } from 'node:timers/promises'
import { pack } from 'tar-stream'
import { afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { TestContext } from 'vitest'
import { encodeFrame, windowBytes } from '../../../src/executor/docker/frame.ts'
import { quickest } from '../../cost.ts'
import { until } from '../../wait.ts'
import { agentInNamespaces, collect, jobOf, namespacesMissing, prepare, run } from './agent.ts'
import type { Agent } from './agent.ts'
import { entriesOf } from './sample.ts'

let missing: string | null
const started: Agent[] = []

beforeAll(() => {
  missing = namespacesMissing()
})

afterEach(async () => {
  for (const agent of started.splice(0)) await agent.stop()
})

async function start(context: TestContext): Promise<Agent> {
  if (missing !== null) context.skip(missing)
  const agent = await agentInNamespaces()
  started.push(agent)
  return agent
}

/** One agent, one job of scripts, all steps run; what they printed. */
async function say(context: TestContext, ...scripts: readonly string[]): Promise<readonly [Agent, string]> {
  const agent = await start(context)
  await prepare(agent, jobOf(scripts))
  for (const [index] of scripts.entries()) await run(agent, index + 1)
  return [agent, agent.text('stdout')]
}

async function archiveOf(files: Readonly<Record<string, string>>, type = 'file'): Promise<Buffer> {
  const archive = pack()
  for (const [name, text] of Object.entries(files))
    archive.entry({ name, mode: name.endsWith('.sh') ? 0o755 : 0o644, type: type as 'file', linkname: 'x' }, text)
  archive.finalize()
  const parts: Buffer[] = []
  for await (const part of archive) parts.push(part as Buffer)
  return Buffer.concat(parts)
}

describe('a step', () => {
  it('has three pipes, a session and exactly the environment of the job, and nothing else of the agent', async (context) => {
    const [agent, text] = await say(
      context,
      'cd /proc/self/fd; for fd in *; do readlink "$fd"; done; cut -d" " -f1,5,6 /proc/$$/stat; env; pwd; id -u; ulimit -c; cat /proc/self/oom_score_adj; grep -E "NoNewPrivs|CapEff|SigIgn" /proc/self/status; umask',
    )
    const lines = text.trim().split('\n')
    // The last of the first four is what the shell read the folder through.
    expect(lines.slice(0, 3).every((line) => line.startsWith('pipe:'))).toBe(true)
    expect(lines.filter((line) => /^(?:pipe|socket|anon_inode):/.test(line)).length).toBe(3)
    const [pid, sid, group] = (lines.find((line) => /^\s*\d+\s+\d+\s+\d+$/.test(line)) ?? '').trim().split(/\s+/)
    expect([sid, group]).toEqual([pid, pid])
    expect(lines.filter((line) => /^[A-Z_]+=/.test(line) && !/^(?:PWD|OLDPWD|SHLVL|_)=/.test(line)).toSorted()).toEqual(
      ['HOME=/work/home', 'LANG=C.UTF-8', 'PATH=/usr/local/bin:/usr/bin:/bin', 'WRIT_OUT=/out'],
    )
    expect(lines).toContain('65532')
    expect(lines).toContain('1000')
    expect(text).toMatch(/NoNewPrivs:\t1/)
    expect(text).toMatch(/CapEff:\t0{16}/)
    expect(text).toMatch(/SigIgn:\t0{16}/)
    expect(agent.frames[0]).toMatchObject({ type: 'ready', dumpable: false, uid: 65_532, no_new_privs: true })
  })

  it('ends as its first process ends', async (context) => {
    const agent = await start(context)
    const job = jobOf(['exit 0', 'exit 255', 'kill -9 $$', 'kill -SEGV $$', 'echo to err >&2; exit 3'])
    await prepare(agent, job)
    const ends = []
    for (const [index] of job.steps.entries()) ends.push(await run(agent, index + 1))
    expect(ends.map(({ step, exit, signal, stopped }) => [step, exit, signal, stopped])).toEqual([
      [1, 0, null, null],
      [2, 255, null, null],
      [3, null, 9, null],
      [4, null, 11, null],
      [5, 3, null, null],
    ])
    expect(agent.text('stderr')).toBe('to err\n')
  })

  it('that is no program ends with 127 or 126 and one line of why', async (context) => {
    const agent = await start(context)
    const names = [
      'nowhere',
      '/work/project/not-here',
      './plain.txt',
      'plain.txt',
      './script.sh',
      './no-interpreter.sh',
      '/work',
    ]
    await prepare(
      agent,
      { ...jobOf([]), steps: names.map((name) => ({ argv: [name] })) },
      await archiveOf({ 'plain.txt': 'x', 'script.sh': '#!/bin/sh\nexit 9\n', 'no-interpreter.sh': '#!/nowhere/x\n' }),
    )
    const ends = []
    for (const [index] of names.entries()) ends.push((await run(agent, index + 1)).exit)
    expect(ends).toEqual([127, 127, 126, 127, 9, 127, 126])
    expect(agent.text('stderr').split('\n').slice(0, 3)).toEqual([
      'writ: nowhere: not found',
      'writ: /work/project/not-here: not found',
      'writ: ./plain.txt: cannot be executed',
    ])
  })

  it('reads the standard input of the job if it is the first, else its end', async (context) => {
    const agent = await start(context)
    const stdin = 'é\0'.repeat(200_000)
    await prepare(agent, jobOf(['wc -c', 'wc -c', 'true'], { stdin }))
    for (const step of [1, 2, 3]) await run(agent, step)
    expect(agent.text('stdout').trim().split(/\s+/)).toEqual([String(Buffer.byteLength(stdin)), '0'])
  })

  it('that does not read its input ends all the same', async (context) => {
    const agent = await start(context)
    await prepare(agent, jobOf(['true'], { stdin: 'x'.repeat(1_000_000) }))
    expect((await run(agent, 1)).exit).toBe(0)
  })

  it('leaves no process to the next one, however it hid it [G-agent-steps]', async (context) => {
    const agent = await start(context)
    const hide =
      "trap '' TERM HUP INT; (setsid sh -c 'trap \"\" TERM HUP; while :; do sleep 0.01; done' & ) ; nohup sleep 1000 & setsid -f sleep 1000; (sleep 1000 </dev/null >/dev/null 2>&1 &); echo begun"
    await prepare(agent, jobOf([hide, 'for p in /proc/[0-9]*; do echo $(cat $p/comm); done']))
    const end = await run(agent, 1)
    expect(end).toMatchObject({ exit: 0, signal: null })
    expect(agent.others()).toEqual([])
    await run(agent, 2)
    expect(agent.text('stdout').trim().split('\n')).toEqual(['begun', 'writ-agent', 'sh'])
  })

  it('has what it wrote last delivered before its end', async (context) => {
    const agent = await start(context)
    await prepare(agent, jobOf(['head -c 1000000 /dev/zero; (sleep 0.05; echo late) & echo last']))
    await run(agent, 1)
    const end = agent.frames.findIndex(({ type }) => type === 'exited')
    expect(agent.frames.slice(end + 1)).toEqual([])
    expect(agent.text('stdout').length).toBe(1_000_005)
    expect(agent.text('stdout').endsWith('last\n')).toBe(true)
  })

  it('begins to say something a few milliseconds after its job', async (context) => {
    const took = await quickest(3, async () => {
      const agent = await start(context)
      const begun = performance.now()
      agent.send({ type: 'job', job: jobOf(['echo first']) })
      agent.send({ type: 'files_end' })
      await agent.next('prepared')
      agent.send({ type: 'step', step: 1 })
      await agent.next('stdout')
      return performance.now() - begun
    })
    // The goal of 1 to 3 ms is the bench's; a busy machine is no reason to fail here.
    expect(took).toBeLessThan(500)
  })
})

describe('the limits of a job', () => {
  it('end a step that uses more processor time than all steps together may', async (context) => {
    const agent = await start(context)
    const job = jobOf(['i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done', 'while :; do :; done', 'true'])
    await prepare(agent, { ...job, limits: { ...job.limits, cpu_s: 1 } })
    const first = await run(agent, 1)
    expect(first).toMatchObject({ exit: 0, stopped: null })
    expect(first.cpu_ms).toBeGreaterThan(20)
    const second = await run(agent, 2)
    expect(second).toMatchObject({ exit: null, signal: 9, stopped: 'cpu' })
    expect(first.cpu_ms + second.cpu_ms).toBeGreaterThanOrEqual(1000)
    expect(first.cpu_ms + second.cpu_ms).toBeLessThan(3000)
    expect(agent.others()).toEqual([])
  })

  it('count what children used that died young, and those of many at once', async (context) => {
    const agent = await start(context)
    const burn = 'i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done'
    const job = jobOf([`for n in 1 2 3 4; do (while :; do (${burn}); done) & done; wait`])
    await prepare(agent, { ...job, limits: { ...job.limits, cpu_s: 1 } })
    const end = await run(agent, 1)
    expect(end).toMatchObject({ signal: 9, stopped: 'cpu' })
    expect(end.cpu_ms).toBeLessThan(4000)
  })

  it(
    'end everything by themselves a while after the wall time that the host keeps',
    { timeout: 60_000 },
    async (context) => {
      const agent = await start(context)
      const job = jobOf(['sleep 1000', 'sleep 1000'])
      await prepare(agent, { ...job, limits: { ...job.limits, wall_s: 1 } })
      const end = await run(agent, 1)
      expect(end).toMatchObject({ signal: 9, stopped: 'time' })
      expect(end.ms).toBeGreaterThan(5000)
      expect(end.ms).toBeLessThan(20_000)
      expect(await run(agent, 2)).toMatchObject({ signal: 9, stopped: 'time' })
    },
  )

  it('stop a stream whose window nobody raises, and let it go on', async (context) => {
    const agent = await start(context)
    agent.flow.on = false
    await prepare(agent, jobOf(['head -c 2000000 /dev/zero; echo done >&2']))
    agent.send({ type: 'step', step: 1 })
    const size = (): number => agent.text('stdout').length
    await until('a window has come', () => size() >= windowBytes)
    await pause(100)
    expect(size()).toBe(windowBytes)
    expect(agent.text('stderr')).toBe('')
    agent.send({ type: 'window', channel: 1, bytes: 5_000_000 })
    await agent.next('exited')
    expect(size()).toBe(2_000_000)
    expect(agent.text('stderr')).toBe('done\n')
  })
})

describe('files', () => {
  it('are unpacked below the project, executable where they were', async (context) => {
    const agent = await start(context)
    const long = `${'d/'.repeat(60)}${'n'.repeat(200)}`
    await prepare(
      agent,
      jobOf(['./run.sh; cat "a b/ü.txt"; stat -c "%a %n" run.sh "a b/ü.txt"; find . -type f | wc -l']),
      await archiveOf({ 'run.sh': '#!/bin/sh\necho ran\n', 'a b/ü.txt': 'text\n', [long]: 'deep' }),
    )
    await run(agent, 1)
    expect(agent.text('stdout')).toBe('ran\ntext\n755 run.sh\n644 a b/ü.txt\n3\n')
    expect(agent.frames.find(({ type }) => type === 'prepared')).toMatchObject({ files: 3 })
  })

  it(
    'that leave the project, come twice or are no files end the agent before anything runs',
    { timeout: 180_000 },
    async (context) => {
      const cases: readonly Buffer[] = [
        await archiveOf({ '../x': 'x' }),
        await archiveOf({ '/work/x': 'x' }),
        await archiveOf({ 'a/../../x': 'x' }),
        await archiveOf({ link: '' }, 'symlink'),
        await archiveOf({ link: '' }, 'link'),
        await archiveOf({ fifo: '' }, 'fifo'),
        await archiveOf({ folder: '' }, 'directory'),
        Buffer.concat([(await archiveOf({ a: '1' })).subarray(0, 1024), await archiveOf({ a: '2' })]),
        Buffer.from('no archive at all'.repeat(100)),
        (await archiveOf({ a: 'x'.repeat(5000) })).subarray(0, 2000),
      ]
      for (const [index, files] of cases.entries()) {
        const agent = await start(context)
        agent.send({ type: 'job', job: jobOf(['true']) })
        agent.send({ type: 'files', bytes: files })
        agent.send({ type: 'files_end' })
        expect([index, await agent.next('failed')]).toEqual([index, { type: 'failed', code: 'bad_job', step: null }])
        expect((await agent.ended).code).toBe(70)
      }
    },
  )

  it('for which there is no room are said to have none', async (context) => {
    const agent = await start(context)
    agent.send({ type: 'job', job: jobOf(['true']) })
    const archive = await archiveOf({ big: 'x'.repeat(70_000_000) })
    for (let at = 0; at < archive.length; at += 65_536)
      agent.send({ type: 'files', bytes: archive.subarray(at, at + 65_536) })
    agent.send({ type: 'files_end' })
    expect(await agent.next('failed')).toMatchObject({ code: 'no_space' })
  })
})

describe('outputs', () => {
  it('are the regular files, in order, with what was left out counted', async (context) => {
    const agent = await start(context)
    const make = [
      'cd /out; echo b > b; mkdir -p a/deep empty; echo one > a/deep/1; printf "#!" > a/run; chmod 755 a/run',
      'ln -s /etc/passwd link; ln -s /etc folder-link; ln -s nowhere dangling; ln b hard; mkfifo fifo',
      'perl -MIO::Socket::UNIX -e "IO::Socket::UNIX->new(Local => q(/out/sock), Listen => 1) or die"',
      'echo x > "$(printf "bad\\377")"; echo x > "back\\\\slash"; echo x > "new\nline"',
      'echo secret > closed; chmod 000 closed; mkdir shut; echo x > shut/x; chmod 000 shut',
      'truncate -s 500M sparse',
    ].join('\n')
    await prepare(agent, jobOf([make]))
    expect((await run(agent, 1)).exit).toBe(0)
    const { archive, end } = await collect(agent)
    expect(await entriesOf(archive)).toEqual([
      ['a/deep/1', 0o644, 'one\n'],
      ['a/run', 0o755, '#!'],
      ['b', 0o644, 'b\n'],
      ['new\nline', 0o644, 'x\n'],
    ])
    expect(end).toMatchObject({
      files: 4,
      bytes: 10,
      // Three symbolic links and the second name of b; fifo, socket, two that cannot be read; two names; the hole.
      left_out: { links: 4, special: 4, names: 2, over_limit: 1 },
    })
    expect((await agent.ended).code).toBe(0)
  })

  it('are no more than the job allows, by number and by bytes', async (context) => {
    const agent = await start(context)
    const job = jobOf(['cd /out; for i in 1 2 3 4 5; do head -c 1000 /dev/zero > $i; done; echo x > 6'])
    await prepare(agent, { ...job, limits: { ...job.limits, artifact_bytes: 2500, artifact_files: 3 } })
    await run(agent, 1)
    const { archive, end } = await collect(agent)
    expect((await entriesOf(archive)).map(([name]) => name)).toEqual(['1', '2', '6'])
    expect(end).toMatchObject({ files: 3, bytes: 2002, left_out: { over_limit: 3 } })
  })

  it('of a hundred thousand names, or of folders without end, are counted and take little memory', async (context) => {
    const agent = await start(context)
    const script =
      'cd /out; perl -e \'for (1..40000) { open(my $f, ">", sprintf("%05d", $_)) }; for (1..100) { mkdir "d"; chdir "d" } open(my $f, ">", "deep")\''
    const job = jobOf([script])
    await prepare(agent, { ...job, limits: { ...job.limits, artifact_files: 10 } })
    await run(agent, 1)
    agent.send({ type: 'collect' })
    const end = await agent.next('archive_end')
    expect(end.files).toBe(10)
    expect(end.left_out.over_limit + end.left_out.names).toBeGreaterThan(39_980)
    expect((await agent.ended).code).toBe(0)
  })

  it('wait for the window of the archive', async (context) => {
    const agent = await start(context)
    agent.flow.on = false
    await prepare(agent, jobOf(['head -c 900000 /dev/urandom > /out/x']))
    await run(agent, 1)
    agent.send({ type: 'collect' })
    const size = (): number =>
      agent.frames.reduce((sum, frame) => sum + (frame.type === 'archive' ? frame.bytes.length : 0), 0)
    await until('a window has come', () => size() >= windowBytes)
    await pause(50)
    expect(size()).toBe(windowBytes)
    agent.send({ type: 'window', channel: 4, bytes: 2_000_000 })
    await agent.next('done')
    expect(size()).toBeGreaterThan(900_000)
  })
})

describe('an agent', () => {
  it('dies with its host, and every process with it [G-agent-host-gone]', async (context) => {
    const agent = await start(context)
    await prepare(agent, jobOf(['setsid -f sleep 1000; echo up; exec sleep 1000']))
    agent.send({ type: 'step', step: 1 })
    await agent.next('stdout')
    expect(agent.others().length).toBe(2)
    agent.hangUp()
    expect((await agent.ended).code).toBe(0)
    expect(agent.others()).toEqual([])
  })

  it('stops when it is told to, at any time', async (context) => {
    for (const when of ['ready', 'job', 'files', 'step'] as const) {
      const agent = await start(context)
      if (when !== 'ready') agent.send({ type: 'job', job: jobOf(['sleep 1000']) })
      if (when === 'files' || when === 'step') agent.send({ type: 'files_end' })
      if (when === 'step') {
        await agent.next('prepared')
        agent.send({ type: 'step', step: 1 })
      }
      agent.send({ type: 'stop' })
      expect((await agent.ended).code).toBe(0)
      expect(agent.others()).toEqual([])
    }
  })

  it('answers each broken rule with one word and its end', { timeout: 180_000 }, async (context) => {
    const frame = (hex: string): Buffer => Buffer.from(hex, 'hex')
    const job = encodeFrame({ type: 'job', job: jobOf(['true']) })
    const text = (content: unknown): Buffer => {
      const payload = Buffer.from(typeof content === 'string' ? content : JSON.stringify(content))
      const head = Buffer.from('000000000100000000', 'hex')
      head.writeUInt32BE(5 + payload.length, 0)
      return Buffer.concat([head, payload])
    }
    const whole = JSON.parse(job.subarray(9).toString('utf8')) as Record<string, unknown>
    const cases: readonly (readonly [string, Buffer, string])[] = [
      ['no length', frame('000000000100000000'), 'bad_frame'],
      ['the longest length', frame('ffffffff0100000000'), 'bad_frame'],
      ['a job too large', frame('008000060100000000'), 'bad_frame'],
      ['a type nobody has', frame('00000005ff00000000'), 'bad_frame'],
      ["an agent's type", frame('000000058f00000000'), 'bad_frame'],
      ['a step before a job', frame('000000050400000001'), 'bad_frame'],
      ['files before a job', frame('000000060200000000ff'), 'bad_frame'],
      ['a window before a job', frame('00000009050000000100000001'), 'bad_frame'],
      ['a job on a channel', Buffer.concat([job.subarray(0, 5), frame('00000001'), job.subarray(9)]), 'bad_frame'],
      ['two jobs', Buffer.concat([job, job]), 'bad_frame'],
      ['a step before the files ended', Buffer.concat([job, frame('000000050400000001')]), 'bad_frame'],
      ['a window of nothing', Buffer.concat([job, frame('00000009050000000100000000')]), 'bad_frame'],
      ['a connection that never was', Buffer.concat([job, frame('000000060600000010ff')]), 'bad_frame'],
      ['no JSON', text('{x'), 'bad_job'],
      ['something behind it', text(`${JSON.stringify(whole)} {}`), 'bad_job'],
      ['a member missing', text({ ...whole, env: undefined }), 'bad_job'],
      ['a member more', text({ ...whole, user: 0 }), 'bad_job'],
      ['a member twice', text(`{"egress":true,${JSON.stringify(whole).slice(1)}`), 'bad_job'],
      ['another spelling', text(JSON.stringify(whole).replace('"egress"', '"Egress"')), 'bad_job'],
      ['another protocol', text({ ...whole, protocol: 'writ-frame/2' }), 'bad_job'],
      ['a step without words', text({ ...whole, steps: [{ argv: [] }] }), 'bad_job'],
      ['a NUL in a word', text({ ...whole, steps: [{ argv: ['a\0'] }] }), 'bad_job'],
      ['an = in a name', text({ ...whole, env: { 'A=B': '' } }), 'bad_job'],
      ['no name', text({ ...whole, env: { '': 'x' } }), 'bad_job'],
      [
        'a fraction',
        text({ ...whole, limits: { cpu_s: 0.5, wall_s: 1, artifact_bytes: 1, artifact_files: 1 } }),
        'bad_job',
      ],
      ['no time', text({ ...whole, limits: { cpu_s: 1, wall_s: 0, artifact_bytes: 1, artifact_files: 1 } }), 'bad_job'],
    ]
    for (const [what, bytes, code] of cases) {
      const agent = await start(context)
      agent.raw(bytes)
      expect([what, await agent.next('failed')]).toEqual([what, { type: 'failed', code, step: null }])
      expect((await agent.ended).code).toBe(70)
      expect(agent.breach).toBeNull()
      await started.pop()?.stop()
    }
  })

  it('kills the running step before it says that a rule was broken', async (context) => {
    const agent = await start(context)
    await prepare(agent, jobOf(['setsid -f sleep 1000; echo up; exec sleep 1000']))
    agent.send({ type: 'step', step: 1 })
    await agent.next('stdout')
    agent.raw(Buffer.from('000000050400000001', 'hex'))
    expect(await agent.next('failed')).toMatchObject({ code: 'bad_frame' })
    expect((await agent.ended).code).toBe(70)
    expect(agent.others()).toEqual([])
  })

  it('takes little memory, idle and with a stream at work', async (context) => {
    const agent = await start(context)
    await prepare(agent, jobOf(['head -c 50000000 /dev/zero']))
    const idle = agent.memory()
    await run(agent, 1)
    expect(idle).toBeLessThan(12 * 1024)
    expect(agent.memory()).toBeLessThan(16 * 1024)
  })
})
