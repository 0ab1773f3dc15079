import { execFileSync, spawn } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer as listenPlain } from 'node:net'
import type { AddressInfo, Server } from 'node:net'
import { tmpdir, userInfo } from 'node:os'
import { dirname, join } from 'node:path'
import { createServer } from 'node:tls'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import type { TestContext } from 'vitest'
import type { DockerExecutor, DockerTimes } from '../../../src/executor/docker/docker.ts'
import { newAuthority } from '../../egress/certificate.ts'
import type { Issued } from '../../egress/certificate.ts'
import { until } from '../../wait.ts'
import { listen, prepare } from '../fixture.ts'
import { contained, place } from './place.ts'
import type { Place } from './place.ts'

/*
 * Engines that are not on this machine: over TLS with certificates of both sides, and over the system's own ssh.
 */

// Containers take seconds each on a slow machine.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 })

let at: Place | { readonly lacking: string }
let folder: string
const ends: (() => void)[] = []
const times: DockerTimes = { quick: 4000, long: 15_000, ready: 15_000, confirm: 4000, again: 1000 }

beforeAll(async () => {
  at = await place()
  folder = mkdtempSync(join(tmpdir(), 'writ-reach-'))
})
afterAll(() => {
  for (const end of ends) end()
  rmSync(folder, { recursive: true, force: true })
})

function real(ctx: TestContext): Place {
  return 'lacking' in at ? ctx.skip(at.lacking) : at
}

async function port(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  ends.push(() => server.close())
  return (server.address() as AddressInfo).port
}

async function works(here: Place, executor: DockerExecutor): Promise<void> {
  try {
    expect((await executor.check()).filter(({ level }) => level === 'problem')).toEqual([])
    const prepared = contained(
      prepare(
        {
          files: { 'in.txt': 'through' },
          argv: [
            ['sh', '-c', 'cat in.txt; cp in.txt /out/'],
            ['echo', ' again'],
          ],
        },
        'docker',
      ),
      here.image,
    )
    const seen = listen(prepared)
    expect(await executor.run(prepared.job, seen.io)).toMatchObject({ end: 'exited', reason: null })
    expect(seen.text()).toBe('through again\n')
    expect([...seen.files.keys()]).toEqual(['in.txt'])
    const stopped = contained(
      prepare({ files: {}, argv: [['sh', '-c', 'echo begun; sleep 300']], limits: { wall_s: 300 } }, 'docker'),
      here.image,
    )
    const other = listen(stopped)
    const running = executor.run(stopped.job, other.io)
    let over = false
    const ended = running.finally(() => (over = true))
    ended.catch(() => undefined)
    await until('it runs', () => over || other.size > 0)
    other.stop.abort('cancel')
    expect(await running).toMatchObject({ end: 'stopped', by: 'cancel', steps: [{ exit: null }] })
  } finally {
    await executor.close()
  }
}

async function refused(executor: DockerExecutor, what: string): Promise<void> {
  try {
    const findings = await executor.check()
    expect(findings).toMatchObject([{ level: 'problem', what: expect.stringContaining(what) as string }])
    expect(findings[0]?.fix ?? '').not.toBe('')
    const prepared = contained(prepare({ files: {}, argv: [['true']] }, 'docker'), (at as Place).image)
    await expect(executor.run(prepared.job, listen(prepared).io)).rejects.toMatchObject({ code: 'target_unavailable' })
  } finally {
    await executor.close()
  }
}

describe('an engine over TLS', () => {
  const authority = newAuthority()
  const client = authority.issue({ dns: ['client'] })
  const pem = (name: string, of: { readonly ca: string } & Issued) => {
    const paths = {
      ca: join(folder, `${name}-ca`),
      cert: join(folder, `${name}-cert`),
      key: join(folder, `${name}-key`),
    }
    for (const part of ['ca', 'cert', 'key'] as const) writeFileSync(paths[part], of[part])
    return paths
  }
  const secure = async (
    here: Place,
    names: { readonly ip?: readonly string[]; readonly dns?: readonly string[] },
  ): Promise<string> => {
    const server = createServer(
      { ...authority.issue(names), ca: authority.ca, requestCert: true, rejectUnauthorized: true },
      (socket) => {
        const onward = connect(here.engine.host.slice('unix://'.length))
        for (const one of [socket, onward]) one.on('error', () => undefined)
        socket.once('close', () => onward.destroy())
        onward.once('close', () => socket.destroy())
        socket.pipe(onward).pipe(socket)
      },
    )
    server.on('tlsClientError', () => undefined)
    return `tcp://127.0.0.1:${await port(server)}`
  }

  test('runs what one on this machine runs, with certificates of both sides [G-engine-reached]', async (ctx) => {
    const here = real(ctx)
    const host = await secure(here, { ip: ['127.0.0.1'] })
    await works(here, here.open({ times, set: { host, tls: pem('good', { ca: authority.ca, ...client }) } }))
  })

  test('is not used without TLS, whatever answers there [G-engine-reached]', async (ctx) => {
    const here = real(ctx)
    let asked = 0
    const server = listenPlain((socket) => {
      asked++
      socket.destroy()
    })
    const host = `tcp://127.0.0.1:${await port(server)}`
    await refused(here.open({ times, set: { host } }), 'without TLS')
    expect(asked).toBe(0)
  })

  test('is not used where it cannot prove its name, is of another authority, or does not take the client [G-engine-reached]', async (ctx) => {
    const here = real(ctx)
    const other = newAuthority()
    const host = await secure(here, { ip: ['127.0.0.1'] })
    const wrongName = await secure(here, { dns: ['engine.example'] })
    for (const [name, at, tls] of [
      ['name', wrongName, { ca: authority.ca, ...client }],
      ['authority', host, { ca: other.ca, ...client }],
      ['client', host, { ca: authority.ca, ...other.issue({ dns: ['client'] }) }],
    ] as const)
      await refused(here.open({ times, set: { host: at, tls: pem(name, tls) } }), 'does not answer')
  })

  test('whose files cannot be read is named as that, without their paths', async (ctx) => {
    const here = real(ctx)
    const none = join(folder, 'none')
    await refused(
      here.open({ times, set: { host: 'tcp://127.0.0.1:1', tls: { ca: none, cert: none, key: none } } }),
      'cannot be read',
    )
  })
})

describe('an engine over ssh', () => {
  const sshd = '/usr/sbin/sshd'
  const key = (name: string, type = 'ed25519'): string => {
    const path = join(folder, name)
    if (!existsSync(path)) execFileSync('ssh-keygen', ['-q', '-t', type, '-N', '', '-f', path])
    return path
  }

  /** Starts a real sshd on a port that was free; false where something else has taken that meanwhile. */
  async function listens(free: number, here: Place): Promise<boolean> {
    const config = join(folder, `sshd-${free}`)
    writeFileSync(
      config,
      [
        `Port ${free}`,
        'ListenAddress 127.0.0.1',
        `HostKey ${key('ssh-of-host')}`,
        `HostKey ${key('ssh-of-host-too', 'ecdsa')}`,
        `AuthorizedKeysFile ${key('ssh-of-client')}.pub`,
        `PidFile ${config}.pid`,
        'StrictModes no',
        'UsePAM no',
        'PasswordAuthentication no',
        'KbdInteractiveAuthentication no',
        'PermitRootLogin yes',
        `SetEnv DOCKER_HOST=${here.engine.host}`,
        '',
      ].join('\n'),
    )
    const daemon = spawn(sshd, ['-D', '-e', '-f', config], { stdio: ['ignore', 'ignore', 'pipe'] })
    ends.push(() => void daemon.kill('SIGKILL'))
    let said = ''
    daemon.stderr.setEncoding('utf8').on('data', (text: string) => (said += text))
    await until('sshd listens or gives up', () => said.includes('Server listening') || daemon.exitCode !== null)
    return daemon.exitCode === null
  }

  /**
   * A real sshd for this user, and a folder that comes first in PATH whose ssh reads our configuration, not the user's.
   * Where `kept` is `default` it has a home folder of its own for that, with the file of known hosts where ssh keeps it.
   */
  async function start(
    here: Place,
    known: (hostKey: string, port: number) => string,
    kept: 'named' | 'default' = 'named',
  ) {
    let free = 0
    await until('sshd has a port', async () => {
      const server = listenPlain()
      free = await port(server)
      await new Promise<void>((resolve) => server.close(() => resolve()))
      return await listens(free, here)
    })
    const user = execFileSync('id', ['-un']).toString().trim()
    const [hostKey, clientKey] = [key('ssh-of-host'), key('ssh-of-client')]
    const own = mkdtempSync(join(folder, 'client-'))
    const knownHosts = join(own, kept === 'named' ? 'known_hosts' : 'home/.ssh/known_hosts')
    mkdirSync(dirname(knownHosts), { recursive: true, mode: 0o700 })
    writeFileSync(knownHosts, known(readFileSync(`${hostKey}.pub`, 'utf8').trim(), free))
    // As lax as a user's own configuration can be: what Writ says on the command line goes before it.
    writeFileSync(
      join(own, 'config'),
      [
        'Host *',
        // By default, and only then, ssh learns what other keys a host says it has.
        ...(kept === 'named' ? [`UserKnownHostsFile ${knownHosts}`, 'UpdateHostKeys yes', 'VerifyHostKeyDNS yes'] : []),
        'GlobalKnownHostsFile /dev/null',
        `IdentityFile ${clientKey}`,
        'IdentitiesOnly yes',
        'StrictHostKeyChecking no',
        '',
      ].join('\n'),
    )
    const ssh = `exec /usr/bin/ssh -F '${own}/config' "$@"`
    writeFileSync(
      join(own, 'ssh'),
      kept === 'named'
        ? `#!/bin/sh\n${ssh}\n`
        : `#!/bin/sh\nexec unshare --mount sh -c 'mount --bind "$0" "$1" && shift && exec "$@"' '${own}/home' '${userInfo().homedir}' ${ssh.slice('exec '.length)}\n`,
    )
    chmodSync(join(own, 'ssh'), 0o755)
    return {
      known: () => readFileSync(knownHosts, 'utf8'),
      executor: here.open({
        times,
        env: { PATH: `${own}:/usr/bin:/bin`, HOME: '/', LANG: 'C.UTF-8' },
        set: { host: `ssh://${user}@127.0.0.1:${free}` },
      }),
    }
  }

  function able(ctx: TestContext): Place {
    const here = real(ctx)
    if (!existsSync(sshd)) ctx.skip('no sshd: install openssh-server with the package manager of the system')
    if (process.getuid?.() === 0 && !existsSync('/run/sshd')) execFileSync('mkdir', ['-p', '-m', '0755', '/run/sshd'])
    return here
  }

  test(
    'runs what one on this machine runs, where its key is known [G-engine-reached]',
    { timeout: 180_000 },
    async (ctx) => {
      const here = able(ctx)
      const { executor } = await start(here, (hostKey, at) => `[127.0.0.1]:${at} ${hostKey}\n`)
      await works(here, executor)
    },
  )

  test.for(['named', 'default'] as const)(
    'learns no other key of a host whose key is known, with the file of known hosts that is %s [G-engine-reached]',
    { timeout: 180_000 },
    async (kept, ctx) => {
      const here = able(ctx)
      if (kept === 'default' && process.getuid?.() !== 0)
        ctx.skip('a home folder of its own for ssh needs root: run the tests as root')
      const { executor, known: now } = await start(here, (hostKey, at) => `[127.0.0.1]:${at} ${hostKey}\n`, kept)
      const before = now()
      expect((await executor.check()).filter(({ level }) => level === 'problem')).toEqual([])
      await executor.close()
      expect(now()).toBe(before)
    },
  )

  test(
    'is not used where its key is not known, or another than is known, and no key is learned [G-engine-reached]',
    { timeout: 180_000 },
    async (ctx) => {
      const here = able(ctx)
      const other = readFileSync(`${key('ssh-of-other')}.pub`, 'utf8').trim()
      for (const known of [(): string => '', (_: string, at: number): string => `[127.0.0.1]:${at} ${other}\n`]) {
        const { executor, known: now } = await start(here, known)
        const before = now()
        await refused(executor, 'does not answer')
        expect(now()).toBe(before)
      }
    },
  )
})
