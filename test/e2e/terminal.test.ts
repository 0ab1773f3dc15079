import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { describe, expect, it, type TestContext, vi } from 'vitest'
import type { JsonObject } from '../../src/digest.ts'
import { until } from '../wait.ts'
import { passphrase, script, useWorld, writBin } from './world.ts'

// A key opens in a second of a whole core, as it is meant to; a busy machine takes longer.
vi.setConfig({ testTimeout: 120_000 })

const world = useWorld()
const driver = join(import.meta.dirname, 'terminal.py')

interface Session {
  readonly code: number
  readonly out: string
  readonly screen: string
  readonly echo: boolean
  readonly canonical: boolean
}

/** `writ …` on a terminal of its own, with somebody who types. Skips where Python has no pty. */
function typed(context: TestContext, args: readonly string[], steps: readonly (readonly [string, string])[]): Session {
  if (spawnSync('python3', ['-c', 'import pty, termios']).status !== 0)
    return context.skip('python3 with its pty module is missing; install python3 to test what is asked on a terminal')
  const done = spawnSync('python3', [driver, JSON.stringify(steps), process.execPath, writBin, ...args], {
    cwd: world.folder,
    env: { ...world.env, TERM: 'xterm' },
    encoding: 'utf8',
  })
  if (done.status !== 0) throw new Error(done.stderr)
  return { ...(JSON.parse(done.stdout) as Omit<Session, 'screen'>), screen: done.stderr }
}

async function waiting(): Promise<{
  readonly id: string
  readonly approval: string
  readonly status: () => Promise<JsonObject>
}> {
  const client = await world.client()
  const submitted = await client.call('submit_task', {
    project_name: 'terminal',
    goal: 'Print a line',
    execution_intent: 'run_script',
    target_ref: 'production',
    ...script('a.js', `console.log('${String(Math.random())}')`),
  })
  const { structured } = await client.call('start_execution', { task_id: String(submitted.structured['task_id']) })
  const id = String(structured['execution_id'])
  return {
    id,
    approval: String((structured['approval'] as JsonObject)['approval_id']),
    status: async () =>
      await until('it waits for a person or has ended', async () => {
        const { structured } = await client.call('get_status', { execution_id: id })
        return structured['state'] !== 'queued' && structured['state'] !== 'running' && structured
      }),
  }
}

describe('a person at a terminal', () => {
  it('enrols with a passphrase typed twice, which is never shown', (context) => {
    const differ = typed(
      context,
      ['approvals', 'enroll', 'ada'],
      [
        ['12 characters or more): ', `${passphrase}\r`],
        ['Once more: ', 'something else\r'],
      ],
    )
    expect(differ).toMatchObject({ code: 2, echo: true, canonical: true })
    expect(differ.screen).toContain('The two passphrases differ; nothing was written.')
    const weak = typed(context, ['approvals', 'enroll', 'ada'], [['12 characters or more): ', 'short\r']])
    expect(weak).toMatchObject({ code: 2 })
    expect(weak.screen).toContain('shorter than 12 characters')
    const done = typed(
      context,
      ['approvals', 'enroll', 'ada'],
      [
        // A slip of the hand is taken back: the last character, and a whole line.
        ['12 characters or more): ', `wrong\u0015${passphrase}é\u007f\r`],
        ['Once more: ', `${passphrase}\r`],
      ],
    )
    expect(done).toMatchObject({ code: 0, echo: true, canonical: true })
    expect(done.screen).not.toContain(passphrase)
    expect(done.screen).not.toContain('wrong')
    expect(done.out).toContain('ada is enrolled with approver')
  })

  it('[G-approval-shown] sees everything, types the passphrase, and the run begins', async (context) => {
    const { approval, status } = await waiting()
    const answered = typed(
      context,
      ['approvals', 'approve', approval, '--reason', 'read'],
      [['type the passphrase of your key: ', `${passphrase}\r`]],
    )
    expect(answered).toMatchObject({ code: 0, echo: true, canonical: true })
    expect(answered.screen).not.toContain(passphrase)
    expect(answered.screen).toContain('Target        production')
    expect(answered.screen.indexOf('Requirement\r\n  sha256:')).toBeLessThan(
      answered.screen.indexOf('type the passphrase'),
    )
    expect(answered.out).toContain('satisfied')
    expect(await status()).toMatchObject({ state: 'succeeded' })
  })

  it('is told of a wrong passphrase, and nothing is signed', async (context) => {
    const { approval, status } = await waiting()
    const wrong = typed(context, ['approvals', 'approve', approval], [['type the passphrase', 'not this one at all\r']])
    expect(wrong).toMatchObject({ code: 2, echo: true, canonical: true, out: '' })
    expect(wrong.screen).toContain('The passphrase does not open this key file.')
    expect(wrong.screen).not.toContain('not this one at all')
    expect(await status()).toMatchObject({ state: 'awaiting_approval' })
  })

  it('gives up with Ctrl-C or Ctrl-D, and the terminal is as before', async (context) => {
    const { approval, status } = await waiting()
    for (const key of ['\u0003', 'half\u0003', '\u0004']) {
      const given = typed(context, ['approvals', 'approve', approval], [['type the passphrase', key]])
      expect(given).toMatchObject({ code: 2, echo: true, canonical: true, out: '' })
      expect(given.screen).toContain('Given up; nothing was signed.')
    }
    expect(await status()).toMatchObject({ state: 'awaiting_approval' })
  })
})

describe('without a terminal', () => {
  it('nothing is asked and nothing hangs', async () => {
    const { approval } = await waiting()
    const done = spawnSync('setsid', ['-w', process.execPath, writBin, 'approvals', 'approve', approval], {
      cwd: world.folder,
      env: world.env,
      input: `${passphrase}\n`,
      encoding: 'utf8',
      timeout: 60_000,
    })
    expect(done.status).toBe(2)
    expect(done.stderr).toContain('There is no terminal to ask on.')
  })
})

describe('an SSH agent', () => {
  it('[G-approval-key] enrols the key it holds and signs with it, after a person said yes; one without the key is refused', async (context) => {
    const started = spawnSync('ssh-agent', ['-s'], { encoding: 'utf8' })
    const socket = /SSH_AUTH_SOCK=([^;]+)/.exec(started.stdout)?.[1]
    const pid = /SSH_AGENT_PID=(\d+)/.exec(started.stdout)?.[1]
    if (started.status !== 0 || socket === undefined || pid === undefined)
      return context.skip('ssh-agent is missing; install openssh-client to test approving with an SSH agent')
    try {
      const env = { ...world.env, SSH_AUTH_SOCK: socket }
      const who = `sshy-${pid}`
      const ssh = (command: string, ...args: readonly string[]): void => {
        const done = spawnSync(command, args, { env, encoding: 'utf8' })
        if (done.status !== 0) throw new Error(done.stderr)
      }
      const writ = (
        ...args: readonly string[]
      ): { readonly code: number | null; readonly out: string; readonly err: string } => {
        const done = spawnSync(process.execPath, [writBin, ...args], { cwd: world.folder, env, encoding: 'utf8' })
        return { code: done.status, out: done.stdout, err: done.stderr }
      }
      expect(writ('approvals', 'enroll', who, '--ssh-agent')).toMatchObject({
        code: 2,
        err: expect.stringContaining('The SSH agent holds no Ed25519 key.') as string,
      })
      const file = join(world.folder, `id-${pid}`)
      // A key of another kind comes first and is passed over.
      ssh('ssh-keygen', '-t', 'ecdsa', '-N', '', '-q', '-f', `${file}-ecdsa`)
      ssh('ssh-keygen', '-t', 'ed25519', '-N', '', '-q', '-C', 'me@here', '-f', file)
      ssh('ssh-add', '-q', `${file}-ecdsa`)
      ssh('ssh-add', '-q', file)
      expect(writ('approvals', 'enroll', who, '--ssh-agent')).toMatchObject({ code: 0, err: '' })
      await world.reload()
      const { approval, status } = await waiting()
      const unasked = spawnSync(
        'setsid',
        ['-w', process.execPath, writBin, 'approvals', 'approve', approval, '--as', who, '--ssh-agent'],
        { cwd: world.folder, env, encoding: 'utf8' },
      )
      expect(unasked.status).toBe(2)
      expect(writ('approvals', 'approve', approval, '--as', who, '--ssh-agent', '--yes')).toMatchObject({ code: 0 })
      expect(await status()).toMatchObject({ state: 'succeeded' })
      ssh('ssh-add', '-q', '-d', file)
      const second = await waiting()
      expect(writ('approvals', 'approve', second.approval, '--as', who, '--ssh-agent', '--yes')).toMatchObject({
        code: 2,
        err: expect.stringContaining(`does not hold the key of "${who}"`) as string,
      })
    } finally {
      process.kill(Number(pid))
    }
  })
})
