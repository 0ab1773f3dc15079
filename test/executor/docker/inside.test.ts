import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import type { TestContext } from 'vitest'
import { pack } from 'tar-stream'
import { agentFor } from '../../../src/executor/docker/binary.ts'
import type { DockerExecutor } from '../../../src/executor/docker/docker.ts'
import type { PlanImage } from '../../../src/plan/plan.ts'
import { listen, prepare } from '../fixture.ts'
import { openBetween } from './between.ts'
import { contained, newOwner, place } from './place.ts'
import type { Place } from './place.ts'

/*
 * What Writ believes of images: what is inside of them, never what they say of themselves.
 */

let at: Place | { readonly lacking: string }
let executor: DockerExecutor
let owner: string
const made: string[] = []

beforeAll(async () => {
  at = await place()
})
beforeEach(() => {
  if ('lacking' in at) return
  owner = newOwner()
  executor = at.open({ owner })
})
afterEach(async () => {
  if ('lacking' in at) return
  await executor.close()
  const left = await at.containers(owner)
  if (left.length > 0) throw new Error(`left: ${left.join(' ')}`)
})
afterAll(async () => {
  if ('lacking' in at) return
  for (const name of made) await at.docker.getImage(name).remove({ force: true })
})

function real(ctx: TestContext): Place {
  return 'lacking' in at ? ctx.skip(at.lacking) : at
}

interface Entry {
  readonly name: string
  readonly mode?: number
  readonly uid?: number
  readonly type?: 'file' | 'symlink' | 'directory'
  readonly linkname?: string
  readonly bytes?: Uint8Array
}

/** An image of these files alone, made without running anything. */
async function image(
  here: Place,
  label: string,
  entries: readonly Entry[],
  changes: readonly string[] = [],
): Promise<string> {
  const name = `writ-test-inside-${process.pid}:${label}`
  const archive = pack()
  for (const { bytes, ...header } of entries) archive.entry(header, Buffer.from(bytes ?? []))
  archive.finalize()
  const stream = await here.docker.importImage(
    archive as unknown as NodeJS.ReadableStream,
    {
      repo: name.split(':')[0],
      tag: label,
      changes,
      platform: 'linux/amd64',
    } as Record<string, unknown>,
  )
  for await (const _chunk of stream as unknown as AsyncIterable<Buffer>);
  made.push(name)
  return name
}

const agent = agentFor('amd64').bytes
const good: Entry = { name: 'writ-agent', mode: 0o555, uid: 0, bytes: agent }

test('an image is known by its id, store, architecture and the agent that is in it; nothing is started to find out', async (ctx) => {
  const here = real(ctx)
  const { images, runtimes } = await executor.facts([here.image.name, here.image.name, 'writ-test-inside:none'])
  expect([...images]).toEqual([[here.image.name, here.image]])
  expect(runtimes.has('')).toBe(true)
  expect([...here.engine.runtimes].filter((name) => !runtimes.has(name))).toEqual([])
})

test('an image without an agent that Writ ships, or one that others may change, is none, whatever its label says [G-image-agent]', async (ctx) => {
  const here = real(ctx)
  const label = `LABEL dev.writ.agent=${agentFor('amd64').digest}`
  const names = [
    await image(here, 'empty', [{ name: 'etc/', type: 'directory' }], [label]),
    await image(here, 'other', [{ ...good, bytes: Buffer.from('#!/bin/sh\n') }], [label]),
    await image(here, 'patched', [{ ...good, bytes: Buffer.concat([agent, Buffer.from([0])]) }], [label]),
    await image(here, 'foreign', [{ ...good, bytes: agentFor('arm64').bytes }], [label]),
    await image(here, 'writable', [{ ...good, mode: 0o777 }], [label]),
    await image(here, 'owned', [{ ...good, uid: 65532 }], [label]),
    await image(
      here,
      'folder',
      [
        { name: 'writ-agent/', type: 'directory', mode: 0o555 },
        { ...good, name: 'writ-agent/writ-agent' },
      ],
      [label],
    ),
    await image(
      here,
      'link',
      [
        { ...good, name: 'real' },
        { name: 'writ-agent', type: 'symlink', linkname: '/real' },
      ],
      [label],
    ),
    await image(here, 'not-run', [{ ...good, mode: 0o444 }], [label]),
    await image(here, 'volume', [good], [label, 'VOLUME /data']),
    '../../containers/x',
    'x?y',
    '',
  ]
  expect([...(await executor.facts(names)).images.keys()]).toEqual([])
  const right = await image(here, 'right', [good])
  expect([...(await executor.facts([right])).images.keys()]).toEqual([right])
})

test("where the engine's containers have users of their own, the agent is a file of the one that is root there [G-image-agent]", async (ctx) => {
  const here = real(ctx)
  const names = [
    await image(here, 'remapped', [{ ...good, uid: 231_072 }]),
    await image(here, 'in-remapped', [{ ...good, uid: 231_072 + 65_532 }]),
  ]
  const right = await image(here, 'plain', [good])
  const between = await openBetween(here.engine.host)
  try {
    for (const [options, folder, found] of [
      [['name=seccomp,profile=default', 'name=userns'], '/var/lib/docker/231072.231072', [names[0], right]],
      [['name=userns'], '/var/lib/docker', [right]],
      [['name=seccomp,profile=default'], '/var/lib/docker/231072.231072', [right]],
    ] as const) {
      between.answer = (path, body) =>
        path.endsWith('/info') ? { ...(body as object), SecurityOptions: options, DockerRootDir: folder } : body
      const own = here.open({ owner, set: { host: between.host } })
      try {
        expect([...(await own.facts([...names, right])).images.keys()]).toEqual(found)
      } finally {
        await own.close()
      }
    }
  } finally {
    await between.close()
  }
})

test('an engine that could not show what is in an image for once is asked again', async (ctx) => {
  const here = real(ctx)
  const between = await openBetween(here.engine.host)
  const own = here.open({ owner, set: { host: between.host } })
  try {
    for (const failing of [/\/archive$/, /\/info$/]) {
      const name = await image(here, `once-${made.length}`, [good], [`LABEL once=${made.length}`])
      await own.facts([])
      between.rule = (_method, path) => (failing.test(path) ? 'fail' : 'pass')
      expect([...(await own.facts([name])).images.keys()]).toEqual([])
      between.rule = () => 'pass'
      expect([...(await own.facts([name, here.image.name])).images.keys()]).toEqual([name, here.image.name])
    }
  } finally {
    await own.close()
    await between.close()
  }
})

test('a run of an image that is not there any more, or never could be run, has not started', async (ctx) => {
  const here = real(ctx)
  const name = await image(here, 'going', [good], ['LABEL going=1'])
  const going = (await executor.facts([name])).images.get(name)
  if (going === undefined) throw new Error('it is there')
  await here.docker.getImage(name).remove({ force: true })
  made.splice(made.indexOf(name), 1)
  const other = await image(here, 'agentless', [{ name: 'etc/', type: 'directory' }], ['CMD ["x"]'])
  const { Id } = await here.docker.getImage(other).inspect()
  const cases: readonly (readonly [PlanImage, string])[] = [
    [going, 'not there any more'],
    [{ ...here.image, id: `sha256:${'0'.repeat(64)}` }, 'not there any more'],
    [{ ...here.image, id: Id }, 'cannot be run any more'],
    [{ ...here.image, agent: agentFor('arm64').digest }, 'cannot be run any more'],
    [{ ...here.image, arch: 'arm64' }, 'not held as it was planned'],
  ]
  for (const [planned, told] of cases) {
    const prepared = contained(prepare({ files: {}, argv: [['true']] }, 'docker'), planned)
    const seen = listen(prepared)
    await expect(executor.run(prepared.job, seen.io)).rejects.toThrow(told)
    expect(seen.started).toEqual([])
  }
})

test('a name that was given to another image since runs what was planned', async (ctx) => {
  const here = real(ctx)
  const tag = { repo: `writ-test-inside-${process.pid}`, tag: 'moved' }
  await here.docker.getImage(here.image.name).tag(tag)
  const name = `${tag.repo}:${tag.tag}`
  const planned = (await executor.facts([name])).images.get(name)
  if (planned === undefined) throw new Error('it is there')
  await image(here, 'moved', [{ name: 'etc/', type: 'directory' }])
  expect((await executor.facts([name])).images.size).toBe(0)
  const prepared = contained(prepare({ files: {}, argv: [['python3', '-c', 'print(1)']] }, 'docker'), planned)
  const seen = listen(prepared)
  expect(await executor.run(prepared.job, seen.io)).toMatchObject({ end: 'exited', steps: [{ exit: 0 }] })
  expect(seen.text()).toBe('1\n')
})

test('a filter that is given by a path, or an option misspelt, makes no container', async (ctx) => {
  const here = real(ctx)
  for (const option of ['seccomp=/profile.json', 'seccomp={"defaultAction":"x"', 'no-new-privilege:true', 'secomp=x']) {
    const make = async (): Promise<void> => {
      const container = await here.docker.createContainer({
        Image: here.image.id,
        Cmd: ['true'],
        Labels: { 'dev.writ.owner': owner },
        HostConfig: { NetworkMode: 'none', SecurityOpt: [option] },
      })
      await container.start()
    }
    await expect(make()).rejects.toThrow(/HTTP code (?:400|500)/)
    for (const id of await here.containers(owner)) await here.docker.getContainer(id).remove({ force: true })
  }
})
