import { randomBytes } from 'node:crypto'
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { join } from 'node:path'
import { pack } from 'tar-stream'
import { afterAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { agentDigests } from '../../src/executor/docker/binary.ts'
import { useWorld } from '../e2e/world.ts'
import { engine } from '../servers/engine.ts'

vi.setConfig({ testTimeout: 120_000 })

/** Images of Writ, made and looked at by the command, in a real engine; and an image of somebody's own. */

const base = 'base:bookworm'
const found = await engine({ images: [base] })
const world = useWorld()
const mine = `writ-test-${randomBytes(4).toString('hex')}`
const made: string[] = []

if (!('lacking' in found)) appendFileSync(join(world.folder, 'writ.yaml'), `\ndocker: { host: "${found.host}" }\n`)

afterAll(async () => {
  if ('lacking' in found) return
  for (const name of made) await found.ask('DELETE', `/images/${name}?force=true`).catch(() => undefined)
})

/** As "docker build" does: a context of these files, under the engine's own builder. */
async function dockerBuild(host: string, tag: string, files: Readonly<Record<string, string | Buffer>>): Promise<void> {
  const context = pack()
  for (const [name, bytes] of Object.entries(files)) context.entry({ name, mode: 0o755 }, bytes)
  context.finalize()
  made.push(tag)
  const said = await new Promise<string>((resolve, reject) => {
    const asked = request(
      {
        socketPath: host.replace('unix://', ''),
        path: `/v1.41/build?t=${encodeURIComponent(tag)}&rm=1&forcerm=1`,
        method: 'POST',
        headers: { 'content-type': 'application/x-tar' },
      },
      (answer) => {
        let text = ''
        answer.on('data', (part) => (text += String(part)))
        answer.on('end', () => resolve(text))
      },
    )
    asked.on('error', reject)
    context.pipe(asked)
  })
  if (said.includes('"error"')) throw new Error(said)
}

function build(name: string, tag: string, ...more: readonly string[]): ReturnType<typeof world.writ> {
  made.push(tag)
  return world.writ(['images', 'build', name, '--base', base, '--tag', tag, ...more])
}

describe('writ images', () => {
  beforeEach((context) => {
    if ('lacking' in found) context.skip(found.lacking)
  })

  it('builds an image with the agent in it, that root alone can change, and tells what the engine says meanwhile', () => {
    const built = build('base', `${mine}/base`, '--json')
    expect(built).toMatchObject({ code: 0 })
    expect(built.err).toContain('COPY writ-agent /writ-agent')
    const { images } = JSON.parse(built.out) as { images: readonly Record<string, unknown>[] }
    expect(images).toEqual([
      {
        name: `${mine}/base`,
        id: expect.stringMatching(/^sha256:[0-9a-f]{64}$/) as string,
        store: expect.stringMatching(/^(?:graphdriver|containerd)$/) as string,
        digest: null,
        arch: expect.stringMatching(/^(?:amd64|arm64)$/) as string,
        size_mb: expect.any(Number) as number,
        agent: agentDigests()[images[0]?.['arch'] as 'amd64'],
        match: true,
      },
    ])
    const listed = world.json(['images', 'list']) as { images: readonly { name: string; match: boolean }[] }
    expect(listed.images).toContainEqual(expect.objectContaining({ name: `${mine}/base`, match: true }))
    expect(world.writ(['images', 'verify', `${mine}/base`])).toMatchObject({ code: 0 })
    expect(world.writ(['images', 'list']).out).toMatch(new RegExp(`${mine}/base +[0-9a-f]{12} .*matches`))
  })

  it('leaves no container behind', async () => {
    if ('lacking' in found) return
    world.writ(['images', 'verify', `${mine}/base`])
    const all = (await found.ask('GET', '/containers/json?all=true')) as readonly {
      readonly Names: readonly string[]
    }[]
    expect(all.filter(({ Names }) => Names.some((name) => name.startsWith('/writ-look-')))).toEqual([])
  })

  it('believes the bytes of the agent and no label, and says what an image lacks', async () => {
    if ('lacking' in found) return
    const label = `LABEL dev.writ.agent=${agentDigests().amd64}`
    const forged = `${mine}/forged`
    await dockerBuild(found.host, forged, {
      Dockerfile: `FROM ${base}\n${label}\nCOPY other /writ-agent\n`,
      other: '#!/bin/sh\necho owned\n',
    })
    const writable = `${mine}/writable`
    await dockerBuild(found.host, writable, {
      Dockerfile: `FROM ${mine}/base\nUSER 0\nRUN chmod 0777 /writ-agent\nUSER 65532\n`,
    })
    const linked = `${mine}/linked`
    await dockerBuild(found.host, linked, {
      Dockerfile: `FROM ${mine}/base\nUSER 0\nRUN mv /writ-agent /real && ln -s /real /writ-agent\n`,
    })
    for (const [name, word] of [
      [forged, 'another agent'],
      [writable, 'no agent'],
      [linked, 'no agent'],
      [base, 'no agent'],
    ] as const)
      expect(world.writ(['images', 'verify', name])).toMatchObject({
        code: 1,
        out: expect.stringContaining(word) as string,
      })
    expect(world.writ(['images', 'verify', 'nobody/has-this'])).toMatchObject({
      code: 1,
      out: expect.stringContaining('ABSENT') as string,
    })
    expect(world.writ(['images', 'verify', '../x', `${mine}/base`]).code).toBe(1)
  })

  it('makes an image of somebody’s own one that work runs in, and until then says what to do', async () => {
    if ('lacking' in found) return
    const own = `${mine}/own`
    world.addTarget(`  own:
    about: An image of our own
    labels: { env: sandbox }
    executor: docker
    image: ${own}
    runtimes: [shell]
    intents: [run_script]
`)
    writeFileSync(join(world.folder, 'who.sh'), 'cat /etc/who-made-this; id -u; ls -ld /writ-agent | cut -c1-10\n')
    const before = world.json(['targets', 'list']) as { targets: readonly Record<string, unknown>[] }
    expect(before.targets.find((one) => one['target_ref'] === 'own')).toMatchObject({
      available: false,
      why: `the engine has no image "${own}", or no agent of this Writ is in it`,
      fix: expect.stringContaining('docs/images.md') as string,
    })
    expect(world.writ(['doctor']).out).toContain('target "own" is not available')
    const early = world.writ(['run', 'own', '--intent', 'run_script', 'who.sh'])
    expect(early.code).toBe(1)
    expect(`${early.out}${early.err}`).toContain('it is not available now')
    expect(`${early.out}${early.err}`).not.toContain(own)
    // The Dockerfile of docs/images.md, with what this engine has.
    const page = readFileSync(join(import.meta.dirname, '..', '..', 'docs', 'images.md'), 'utf8')
    const dockerfile = /```dockerfile\n([^]*?)```/.exec(page)?.[1] ?? ''
    expect(dockerfile).toContain('COPY --from=writ/base /writ-agent /writ-agent')
    await dockerBuild(found.host, own, {
      Dockerfile: dockerfile
        .replace('debian:bookworm-slim', base)
        .replace('writ/base', `${mine}/base`)
        .replace(/RUN apt-get[^]*?\n(?=\S)/, 'RUN echo somebody > /etc/who-made-this\n'),
    })
    expect(world.writ(['images', 'verify', own])).toMatchObject({ code: 0 })
    await vi.waitFor(
      () =>
        expect(world.writ(['run', 'own', '--intent', 'run_script', 'who.sh']).err).toContain(
          'somebody\n65532\n-r-xr-xr-x\n',
        ),
      { timeout: 30_000, interval: 2000 },
    )
    const [last] = (world.json(['executions', 'list', '--limit', '1']) as { executions: readonly { id: string }[] })
      .executions
    expect(JSON.stringify(world.json(['executions', 'show', last?.id ?? '']))).toContain('container')
  })

  it('refuses names, bases and networks that are none, and a build the engine cannot do', () => {
    for (const [args, words] of [
      [['build', 'cobol'], 'Writ has no image "cobol"; it has base, python, node, go, shell'],
      [['build', 'base', '--base', '-v /:/host'], '--base has to name an image'],
      [['build', 'base', '--tag', 'UPPER CASE'], '--tag has to name an image'],
      [['build', 'base', 'node', '--tag', 'x'], '--tag names one image'],
      [['build', 'base', '--network', 'bridge'], '--network can only be "host"'],
    ] as const)
      expect(world.writ(['images', ...args])).toMatchObject({ code: 2, err: expect.stringContaining(words) as string })
    const impossible = build('base', `${mine}/none`, '--base', 'localhost:1/there/is:none')
    expect(impossible.code).toBe(2)
    expect(impossible.err).toContain('The engine could not build the image')
  })
})

describe('without an engine', () => {
  const none = useWorld()
  appendFileSync(join(none.folder, 'writ.yaml'), '\ndocker: { host: "unix:///nowhere/docker.sock" }\n')

  it('images say that there is none and what to do; targets and doctor too, and isolates go on', () => {
    expect(none.writ(['images', 'list'])).toMatchObject({
      code: 2,
      err: expect.stringContaining('could not be reached') as string,
    })
    expect(none.writ(['init', none.folder, '--with', 'docker'])).toMatchObject({ code: 0 })
    const { targets } = none.json(['targets', 'list']) as { targets: readonly Record<string, unknown>[] }
    expect(targets.map((one) => [one['target_ref'], one['available']])).toEqual([
      ['sandbox', true],
      ['production', true],
      ['python', false],
      ['node', false],
      ['go', false],
      ['shell', false],
    ])
    expect(none.writ(['doctor']).out).toContain('does not answer')
    writeFileSync(join(none.folder, 'a.js'), "console.log('goes on')")
    expect(none.writ(['run', 'sandbox', '--intent', 'run_script', 'a.js']).err).toContain('goes on')
  })
})
