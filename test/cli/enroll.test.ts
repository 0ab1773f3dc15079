import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { approvalsEnroll } from '../../src/cli/enroll.ts'
import type { Context } from '../../src/cli/context.ts'
import { loadConfig } from '../../src/config.ts'
import { generateKey } from '../../src/jws.ts'
import { until } from '../wait.ts'

const folder = mkdtempSync(join(tmpdir(), 'writ-enroll-'))
const path = join(folder, 'writ.yaml')
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const head = 'local: { subject: me, roles: [developer] } # who I am\n'
const key = generateKey().x

/** A real agent answers with a real key, so that no passphrase costs a second here. */
function agent(): { readonly socket: string; readonly end: () => void } | null {
  const started = spawnSync('ssh-agent', ['-s'], { encoding: 'utf8' })
  const socket = /SSH_AUTH_SOCK=([^;]+)/.exec(started.stdout)?.[1]
  const pid = /SSH_AGENT_PID=(\d+)/.exec(started.stdout)?.[1]
  if (started.status !== 0 || socket === undefined || pid === undefined) return null
  const file = join(folder, `id${pid}`)
  const env = { PATH: process.env['PATH'] ?? '', SSH_AUTH_SOCK: socket }
  spawnSync('ssh-keygen', ['-t', 'ed25519', '-N', '', '-q', '-C', 'of the test', '-f', file], { env })
  const added = spawnSync('ssh-add', ['-q', file], { env })
  const end = (): void => void process.kill(Number(pid))
  if (added.status === 0) return { socket, end }
  end()
  return null
}

function context(env: Readonly<Record<string, string>>): Context {
  return {
    env,
    cwd: folder,
    version: '0',
    stdin: process.stdin,
    configFlag: path,
    json: false,
    tty: false,
    columns: null,
    say: () => undefined,
    note: () => undefined,
    data: () => undefined,
  }
}

describe('adding an approver to writ.yaml', () => {
  const lists: Readonly<Record<string, string>> = {
    'no list': head,
    'no line end': head.trimEnd(),
    'an empty list': `${head}approvers: [] # nobody yet\n# after\n`,
    'an empty list on lines': `${head}approvers: [\n]\n`,
    'a list in one line': `${head}approvers: [{ subject: a, roles: [x], key: ${key} }] # one\nidle_stop_s: 5\n`,
    'a list of lines': `${head}approvers:\n    - { subject: a, roles: [x], key: ${key} } # one\n# after\nidle_stop_s: 5\n`,
    'a list of blocks': `${head}approvers:\n- subject: a # one\n  roles:\n  - x\n  key: ${key} # its key\n# after\n`,
    'a list at the end': `${head}approvers:\n  - subject: a\n    roles: [x]\n    key: ${key}`,
  }
  for (const [name, text] of Object.entries(lists))
    it(`changes nothing else where there is ${name}`, async (test) => {
      const ssh = agent()
      if (ssh === null) return test.skip('ssh-agent is missing; install openssh-client')
      try {
        writeFileSync(path, text, { mode: 0o640 })
        await approvalsEnroll(context({ SSH_AUTH_SOCK: ssh.socket }), 'true', { role: [], sshAgent: true })
        const after = readFileSync(path, 'utf8')
        expect(loadConfig(path).approvers.map(({ subject }) => subject)).toEqual(
          text.includes('subject: a') ? ['a', 'true'] : ['true'],
        )
        for (const line of text.split('\n').filter((one) => one.includes('#'))) {
          expect(after).toContain(line.slice(line.indexOf('#')))
        }
        const added = /(?:, |\s*\n\s*- )?\{ subject: "true", roles: \["approver"\], key: [\w-]{43} \}/
        const squeezed = (one: string): string =>
          one
            .replace(/\s+/g, ' ')
            .replace('approvers: [] ', 'approvers: ')
            .replace('approvers: [ ]', 'approvers:')
            .trim()
        expect(squeezed(after.replace(added, '')).replace(/ ?approvers:$/, '')).toBe(
          squeezed(text).replace(/ ?approvers:$/, ''),
        )
        expect(statSync(path).mode & 0o777).toBe(0o640)
        expect(readdirSync(folder).filter((one) => one.startsWith('.writ'))).toEqual([])
      } finally {
        ssh.end()
      }
    })

  it('waits for another command that does, loses nothing it added, and keeps the file as readable as it was', async () => {
    writeFileSync(path, head)
    chmodSync(path, 0o644)
    const taken = join(folder, '.writ.yaml.next')
    writeFileSync(taken, '')
    const passphrase = join(folder, 'id-passphrase')
    writeFileSync(passphrase, 'a passphrase for the tests')
    const fd = openSync(passphrase, 'r')
    const umask = process.umask(0o077)
    try {
      const enrolling = approvalsEnroll(context({}), 'ada', { role: [], passphraseFd: fd })
      await until('its key is made', () => existsSync(join(folder, 'keys', 'approvers')))
      await new Promise((resolve) => setTimeout(resolve, 100))
      writeFileSync(path, `${head}approvers:\n  - { subject: bob, roles: [x], key: ${key} }\n`)
      rmSync(taken)
      await enrolling
    } finally {
      process.umask(umask)
      closeSync(fd)
    }
    expect(loadConfig(path).approvers.map(({ subject }) => subject)).toEqual(['bob', 'ada'])
    expect(statSync(path).mode & 0o777).toBe(0o644)
    expect(existsSync(taken)).toBe(false)
    rmSync(join(folder, 'keys'), { recursive: true })
  })

  it('leaves all as it was where the list cannot be added to, and says so before a key is made', async () => {
    writeFileSync(path, `${head}approvers:\n`)
    const before = readFileSync(path, 'utf8')
    await expect(approvalsEnroll(context({}), 'ada', { role: [], passphraseFd: 0 })).rejects.toMatchObject({
      code: expect.stringMatching(/usage|invalid_config/) as string,
    })
    expect(readFileSync(path, 'utf8')).toBe(before)
    expect(readdirSync(folder).filter((one) => one !== 'writ.yaml' && !one.startsWith('id'))).toEqual([])
  })
})
