import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { follow } from '../src/watch.ts'
import type { Follower } from '../src/watch.ts'

let folder = ''
let follower: Follower | null = null
/** What was there each time the change was told. */
let told: string[] = []

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'writ-watch-'))
  told = []
})
afterEach(async () => {
  await follower?.close()
  follower = null
  rmSync(folder, { recursive: true, force: true })
})

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return 'nothing'
  }
}

async function following(
  path: string,
  changed: () => Promise<void> = async () => await Promise.resolve(),
): Promise<void> {
  follower = await follow({
    paths: () => [path],
    state: async () => await Promise.resolve(read(path)),
    async changed() {
      told.push(read(path))
      await changed()
    },
  })
}

const last = (): string | undefined => told.at(-1)

describe('what is followed', () => {
  it('is told of when it is written, replaced, taken away and put back', async () => {
    const path = join(folder, 'a.yaml')
    writeFileSync(path, 'one')
    await following(path)
    writeFileSync(path, 'two')
    await expect.poll(last).toBe('two')
    writeFileSync(join(folder, 'draft'), 'three')
    renameSync(join(folder, 'draft'), path)
    await expect.poll(last).toBe('three')
    rmSync(path)
    await expect.poll(last).toBe('nothing')
    writeFileSync(path, 'four')
    await expect.poll(last).toBe('four')
  })

  it('need not be there, nor its folder', async () => {
    const path = join(folder, 'later', 'a.yaml')
    await following(path)
    mkdirSync(join(folder, 'later'))
    writeFileSync(path, 'one')
    await expect.poll(last).toBe('one')
  })

  it('may be a link: what it leads to is followed where it lies', async () => {
    mkdirSync(join(folder, 'elsewhere'))
    const real = join(folder, 'elsewhere', 'a.yaml')
    writeFileSync(real, 'one')
    const path = join(folder, 'a.yaml')
    symlinkSync(join('elsewhere', 'a.yaml'), path)
    await following(path)
    writeFileSync(real, 'two')
    await expect.poll(last).toBe('two')
  })

  it('may be mounted as Kubernetes does, with all files of a version behind one link', async () => {
    const version = (name: string, text: string): void => {
      mkdirSync(join(folder, name))
      writeFileSync(join(folder, name, 'a.yaml'), text)
      symlinkSync(name, join(folder, 'next'))
      renameSync(join(folder, 'next'), join(folder, '..data'))
    }
    version('..1', 'one')
    const path = join(folder, 'a.yaml')
    symlinkSync(join('..data', 'a.yaml'), path)
    await following(path)
    version('..2', 'two')
    rmSync(join(folder, '..1'), { recursive: true })
    await expect.poll(last).toBe('two')
    version('..3', 'three')
    await expect.poll(last).toBe('three')
  })

  it('is looked at though somebody writes all the time', async () => {
    const path = join(folder, 'a.yaml')
    writeFileSync(path, 'one')
    await following(path)
    const writing = new AbortController()
    const writer = (async () => {
      // Oftener than the pause that ends a change.
      for (let count = 0; !writing.signal.aborted; count++) {
        writeFileSync(path, `busy ${count}`)
        await pause(20)
      }
    })()
    await expect.poll(() => told.length).toBeGreaterThan(2)
    writing.abort()
    await writer
    const end = read(path)
    await expect.poll(last).toBe(end)
  })

  it('is told of one at a time, and again where it changed meanwhile', async () => {
    const path = join(folder, 'a.yaml')
    writeFileSync(path, 'one')
    const begun = Promise.withResolvers<void>()
    const held = Promise.withResolvers<void>()
    await following(path, async () => {
      begun.resolve()
      await held.promise
    })
    writeFileSync(path, 'two')
    await begun.promise
    writeFileSync(path, 'three')
    await pause(400)
    expect(told).toEqual(['two'])
    held.resolve()
    await expect.poll(last).toBe('three')
  })

  it('is told of no more once it is closed', async () => {
    const path = join(folder, 'a.yaml')
    writeFileSync(path, 'one')
    await following(path)
    writeFileSync(path, 'two')
    await follower?.close()
    const { length } = told
    writeFileSync(path, 'three')
    await pause(400)
    expect(told).toHaveLength(length)
  })
})
