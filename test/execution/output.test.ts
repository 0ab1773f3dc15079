import { spawn } from 'node:child_process'
import { appendFileSync, closeSync, openSync, readdirSync, statSync, truncateSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { digestOf } from '../../src/digest.ts'
import { WritError } from '../../src/error.ts'
import { openSyncer } from '../../src/execution/output-file.ts'
import { openOutputStore } from '../../src/execution/output.ts'
import type { OutputStore } from '../../src/execution/output.ts'
import { newId } from '../../src/id.ts'
import type { ExecutionId } from '../../src/id.ts'
import { effort } from '../cost.ts'
import { folder } from '../ledger/folder.ts'
import { smallDisk, whyNoDisk } from '../ledger/small-disk.ts'

/** All of it, page after page, as a client would follow it. */
function follow(store: OutputStore, execution: ExecutionId, pageBytes: number): readonly string[] {
  const pages: string[] = []
  let cursor = 'start'
  for (;;) {
    const page = store.read(execution, cursor, pageBytes)
    pages.push(page.text)
    if (!page.more) return pages
    cursor = page.cursor
  }
}

function codeOf(work: () => unknown): string {
  try {
    work()
    return 'done'
  } catch (error) {
    if (error instanceof WritError) return error.code
    throw error
  }
}

it('shows a page of an output that changes its stream with each byte in the time of any other', async () => {
  const store = openOutputStore(folder())
  const [execution, plain] = [newId('exec'), newId('exec')]
  const writer = store.writer(execution, 60_000)
  for (let at = 0; at < 70_000; at++) writer.write(0, at % 2 === 0 ? 'stdout' : 'stderr', Buffer.from('x'))
  const other = store.writer(plain, 60_000)
  other.write(0, 'stdout', Buffer.alloc(70_000, 'x'))
  const reading = async (of: ExecutionId): Promise<number> =>
    await effort(() => {
      for (let n = 0; n < 200; n++) expect(store.read(of, null, 100).dropped_bytes).toBeGreaterThan(0)
    })
  await reading(plain)
  expect(await reading(execution)).toBeLessThan(5 * (await reading(plain)))
  await other.close()
  expect(store.tail(execution, 0, 4096)).toBe('x'.repeat(4096))
  const { dropped_bytes } = await writer.close()
  expect(dropped_bytes).toBe(10_000)
  expect(store.read(execution, 'start', 100).dropped_bytes).toBe(10_000)
}, 60_000)

describe('a writer', () => {
  it('makes what it was given readable at once, and accounts for it at the end', async () => {
    const store = openOutputStore(folder())
    const execution = newId('exec')
    const writer = store.writer(execution, 100)
    writer.write(0, 'stdout', Buffer.from('hello '))
    expect(store.read(execution, 'start', 100)).toEqual({
      text: 'hello ',
      cursor: expect.any(String),
      more: false,
      dropped_bytes: 0,
    })
    writer.write(0, 'stderr', Buffer.from('world\n'))
    expect(store.read(execution, 'start', 100).text).toBe('hello world\n')
    expect(await writer.close()).toEqual({ bytes: 12, dropped_bytes: 0, sha256: digestOf('hello world\n') })
    expect(await store.summary(execution)).toEqual({ bytes: 12, dropped_bytes: 0, sha256: digestOf('hello world\n') })
  })

  it('drops all that follows once its limit is passed, and says how much', async () => {
    const dir = folder()
    const store = openOutputStore(dir)
    const execution = newId('exec')
    const writer = store.writer(execution, 8)
    writer.write(0, 'stdout', Buffer.from('12345'))
    expect(writer.full).toBe(false)
    writer.write(0, 'stdout', Buffer.from('67\u{1f600}'))
    expect(writer.full).toBe(true)
    writer.write(0, 'stdout', Buffer.from('x'))
    expect(await writer.close()).toEqual({ bytes: 7, dropped_bytes: 5, sha256: digestOf('1234567') })
    expect(openOutputStore(dir).read(execution, 'start', 100)).toMatchObject({ text: '1234567', dropped_bytes: 5 })
  })

  it('is given once for an execution, also after a restart', async () => {
    const dir = folder()
    const execution = newId('exec')
    await openOutputStore(dir).writer(execution, 1).close()
    expect(codeOf(() => openOutputStore(dir).writer(execution, 1))).toBe('conflict')
  })

  it('keeps its files for their owner alone, and takes no name but an execution’s', async () => {
    const dir = join(folder(), 'output')
    const store = openOutputStore(dir)
    const writer = store.writer(newId('exec'), 10)
    writer.write(0, 'stdout', Buffer.from('x'))
    await writer.close()
    expect((statSync(dir).mode & 0o777).toString(8)).toBe('700')
    expect(readdirSync(dir).map((name) => (statSync(join(dir, name)).mode & 0o777).toString(8))).toEqual(['600', '600'])
    for (const name of ['../escape', 'exec_../../..', '', 'exec_AAAAAAAAAA'] as ExecutionId[]) {
      expect(codeOf(() => store.writer(name, 1))).toBe('not_found')
      expect(codeOf(() => store.read(name, null, 1))).toBe('not_found')
    }
  })

  it('puts a character together that arrives in pieces between the other stream’s bytes', async () => {
    const store = openOutputStore(folder())
    const execution = newId('exec')
    const writer = store.writer(execution, 100)
    const [a, b, c, d] = Buffer.from('\u{1f600}')
    for (const byte of [a, b, c, d]) {
      writer.write(0, 'stdout', Buffer.of(byte ?? 0))
      writer.write(0, 'stderr', Buffer.from('.'))
    }
    writer.write(0, 'stdout', Buffer.of(0xe2, 0x82))
    const end = await writer.close()
    expect(end.bytes).toBe(10)
    expect(store.read(execution, 'start', 100).text).toBe('...\u{1f600}.\ufffd\ufffd')
  })
})

describe('a reader', () => {
  it('sees the last 2 KiB without a cursor, from a whole character on', async () => {
    const store = openOutputStore(folder())
    const execution = newId('exec')
    const writer = store.writer(execution, 100_000)
    writer.write(0, 'stdout', Buffer.from('\u20ac'.repeat(1000)))
    await writer.close()
    const page = store.read(execution, null, 8192)
    expect(page.text).toBe('\u20ac'.repeat(682))
    expect(page.more).toBe(false)
    expect(store.read(execution, page.cursor, 8192).text).toBe('')
    expect(store.read(execution, null, 7).text).toBe('\u20ac\u20ac')
  })

  it('sees whole lines without a cursor, unless half of what it could see would go for it', async () => {
    const last = async (text: string): Promise<string> => {
      const store = openOutputStore(folder())
      const execution = newId('exec')
      const writer = store.writer(execution, 100_000)
      writer.write(0, 'stdout', Buffer.from(text))
      await writer.close()
      return store.read(execution, null, 8192).text
    }
    const lines = Array.from({ length: 1000 }, (_, n) => `line ${String(n)}\n`).join('')
    expect(await last(lines)).toMatch(/^line \d+\n/)
    // Exactly 2 KiB of whole lines, and one byte more than that.
    const even = `${'x'.repeat(511)}\n`.repeat(4)
    expect(await last(`before\n${even}`)).toBe(even)
    expect(await last(even)).toBe(even)
    expect(await last(`y${even}`)).toBe(even.slice(512))
    const long = `${'z'.repeat(3000)}\nthe end\n`
    expect(await last(long)).toBe(long.slice(-2048))
  })

  it('sees the end as it is, however often it was asked for before the run, in it and after', async () => {
    const store = openOutputStore(folder())
    const execution = newId('exec')
    const end = () => [store.read(execution, null, 100).text, store.read(execution, null, 100).text]
    expect(end()).toEqual(['', ''])
    const writer = store.writer(execution, 1000)
    expect(codeOf(() => store.writer(execution, 1))).toBe('conflict')
    writer.write(0, 'stdout', Buffer.from('one\n'))
    expect(end()).toEqual(['one\n', 'one\n'])
    writer.write(0, 'stdout', Buffer.from('two\n'))
    expect(end()).toEqual(['one\ntwo\n', 'one\ntwo\n'])
    await writer.close()
    expect(end()).toEqual(['one\ntwo\n', 'one\ntwo\n'])
    expect(store.read(execution, null, 4).text).toBe('two\n')
  })

  it('gets every byte once by following cursors, repeatably and across a restart, never half a character', async () => {
    const dir = folder()
    const execution = newId('exec')
    const text = 'a\u00e9\u20ac\u{1f600}\r\n'.repeat(200)
    const writer = openOutputStore(dir).writer(execution, 100_000)
    for (const byte of Buffer.from(text)) writer.write(0, 'stdout', Buffer.of(byte))
    await writer.close()
    const shown = text.replaceAll('\r\n', '\n')
    for (const size of [1, 5, 64, 8192]) {
      const pages = follow(openOutputStore(dir), execution, size)
      expect(pages.join('')).toBe(shown)
      expect(Math.max(...pages.map((page) => Buffer.byteLength(page)))).toBeLessThanOrEqual(Math.max(size, 4))
    }
    const first = openOutputStore(dir).read(execution, 'start', 10)
    expect(openOutputStore(dir).read(execution, 'start', 10)).toEqual(first)
  })

  it('follows a run while it is written', async () => {
    const store = openOutputStore(folder())
    const execution = newId('exec')
    const writer = store.writer(execution, 100)
    let { cursor } = store.read(execution, null, 100)
    let seen = ''
    for (const word of ['one ', 'two ', 'three']) {
      const changed = store.changed(execution, new AbortController().signal)
      writer.write(0, 'stdout', Buffer.from(word))
      await changed
      const page = store.read(execution, cursor, 100)
      seen += page.text
      ;({ cursor } = page)
    }
    expect(seen).toBe('one two three')
    const ended = store.changed(execution, new AbortController().signal)
    await writer.close()
    await ended
    const stop = new AbortController()
    const never = store.changed(execution, stop.signal)
    stop.abort()
    await never
  })

  it('[G-output-inert] is shown control, escape, bidirectional and hiding characters, never given them', async () => {
    const store = openOutputStore(folder())
    const execution = newId('exec')
    const writer = store.writer(execution, 100_000)
    const every = [...Array.from({ length: 0x3000 }, (_, i) => i), 0xfeff, 0xfff9, 0xe0041, 0xe007f, 0xe0100]
    writer.write(
      0,
      'stdout',
      Buffer.from(`\u001b]0;title\u0007\u001b[2J\u009b31m${every.map((code) => String.fromCodePoint(code)).join('')}`),
    )
    writer.write(0, 'stdout', Buffer.from([0xff, 0xc0, 0x80, 0xed, 0xa0, 0x80, 0xf4, 0x90, 0x80, 0x80]))
    await writer.close()
    const text = follow(store, execution, 500).join('')
    expect(text.startsWith('\\u{1b}]0;title\\u{7}\\u{1b}[2J\\u{9b}31m')).toBe(true)
    expect(text).not.toMatch(
      // eslint-disable-next-line no-control-regex -- these are what must not be there
      /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\u{e0000}-\u{e0fff}]/u,
    )
    expect(text.endsWith('\ufffd'.repeat(10))).toBe(true)
    expect(text.isWellFormed()).toBe(true)
    expect(store.tail(execution, 0, 4096)).toBe(text.slice(-store.tail(execution, 0, 4096).length))
  })

  it('keeps a page within the bytes it asked for, however much the text grows by being shown', async () => {
    const store = openOutputStore(folder())
    const execution = newId('exec')
    const writer = store.writer(execution, 100_000)
    writer.write(0, 'stdout', Buffer.alloc(5000, 0x1b))
    await writer.close()
    const pages = follow(store, execution, 1000)
    expect(Math.max(...pages.map((page) => Buffer.byteLength(page)))).toBeLessThanOrEqual(1000)
    expect(pages.join('')).toBe('\\u{1b}'.repeat(5000))
    expect(Buffer.byteLength(store.read(execution, null, 1000).text)).toBeLessThanOrEqual(1000)
    expect(Buffer.byteLength(store.tail(execution, null, 1000))).toBeLessThanOrEqual(1000)
  })

  it('is told of a cursor that nobody gave, and survives one that was made up', async () => {
    const store = openOutputStore(folder())
    const execution = newId('exec')
    const writer = store.writer(execution, 100)
    writer.write(0, 'stdout', Buffer.from('\u20ac'))
    await writer.close()
    for (const cursor of ['', 'end', 'c', 'c-1', 'c1.5', '0', 'cZZ', 'c'.repeat(99), 'c zz', '../x'])
      expect(codeOf(() => store.read(execution, cursor, 10))).toBe('invalid_arguments')
    expect(store.read(execution, 'czzzzzzzzzz', 10)).toMatchObject({ text: '', more: false })
    expect(store.read(execution, 'c1', 10).text).toBe('\ufffd\ufffd')
  })

  it('finds nothing of an execution that printed nothing', async () => {
    const store = openOutputStore(folder())
    const execution = newId('exec')
    expect(store.read(execution, null, 10)).toMatchObject({ text: '', more: false, dropped_bytes: 0 })
    expect(store.tail(execution, 0, 10)).toBe('')
    expect(await store.summary(execution)).toEqual({ bytes: 0, dropped_bytes: 0, sha256: digestOf('') })
  })

  it('gets the tail of one step, of both its streams, and of the whole', async () => {
    const store = openOutputStore(folder())
    const execution = newId('exec')
    const writer = store.writer(execution, 10_000)
    writer.write(0, 'stdout', Buffer.from('first '))
    writer.write(1, 'stdout', Buffer.from('second '))
    writer.write(0, 'stderr', Buffer.from('late '))
    writer.write(2, 'stdout', Buffer.from('\u20ac'.repeat(50)))
    await writer.close()
    expect(store.tail(execution, 0, 4096)).toBe('first late ')
    expect(store.tail(execution, 1, 4096)).toBe('second ')
    expect(store.tail(execution, 9, 4096)).toBe('')
    expect(store.tail(execution, 0, 7)).toBe('t late ')
    expect(store.tail(execution, 2, 10)).toBe('\u20ac\u20ac\u20ac')
    expect(store.tail(execution, null, 4096)).toBe(`first second late ${'\u20ac'.repeat(50)}`)
  })
})

describe('after a crash', () => {
  it('keeps readable what a killed process had written', async () => {
    const dir = folder()
    const execution = newId('exec')
    const module = new URL('../../src/execution/output.ts', import.meta.url).href
    const program = `
      const { openOutputStore } = await import('${module}')
      const writer = openOutputStore(${JSON.stringify(dir)}).writer('${execution}', 1e6)
      for (let i = 0; i < 1000; i++) writer.write(i % 3, i % 2 === 0 ? 'stdout' : 'stderr', Buffer.from('line ' + i + '\\n'))
      process.kill(process.pid, 'SIGKILL')`
    const child = spawn(process.execPath, ['--input-type=module', '-e', program], { stdio: 'inherit', env: {} })
    expect(await new Promise((resolve) => child.on('close', (_, signal) => resolve(signal)))).toBe('SIGKILL')
    const store = openOutputStore(dir)
    const text = Array.from({ length: 1000 }, (_, i) => `line ${i}\n`).join('')
    expect(follow(store, execution, 8192).join('')).toBe(text)
    expect(store.tail(execution, 0, 20)).toBe('3\nline 996\nline 999\n')
    expect(await store.summary(execution)).toEqual({
      bytes: Buffer.byteLength(text),
      dropped_bytes: 0,
      sha256: digestOf(text),
    })
  })

  it('reads on through an index or bytes that were cut short', async () => {
    const dir = folder()
    const execution = newId('exec')
    const store = openOutputStore(dir)
    const writer = store.writer(execution, 100)
    writer.write(0, 'stdout', Buffer.from('first '))
    writer.write(1, 'stdout', Buffer.from('second'))
    await writer.close()
    const { cursor } = store.read(execution, 'start', 100)
    appendFileSync(join(dir, `${execution}.idx`), Buffer.alloc(7))
    truncateSync(join(dir, `${execution}.out`), 4)
    expect(store.read(execution, 'start', 100)).toMatchObject({ text: 'firs', more: false })
    expect(store.read(execution, cursor, 100)).toMatchObject({ text: '', more: false })
    expect(store.tail(execution, 1, 100)).toBe('')
    expect(store.tail(execution, 0, 100)).toBe('firs')
  })
})

it('lets a run go on when the disk is full: what has no room is dropped and counted', async (ctx) => {
  const disk = smallDisk(128)
  if (disk === null) return ctx.skip(whyNoDisk)
  const store = openOutputStore(join(disk.path, 'output'))
  const execution = newId('exec')
  const writer = store.writer(execution, 1 << 20)
  for (let i = 0; i < 64; i++) writer.write(0, 'stdout', Buffer.alloc(4096, 0x61))
  expect(writer.full).toBe(true)
  const { bytes, dropped_bytes, sha256 } = await writer.close()
  expect(bytes + dropped_bytes).toBe(64 * 4096)
  expect(bytes).toBeGreaterThan(0)
  expect(sha256).toBe(digestOf('a'.repeat(bytes)))
  expect(store.read(execution, 'start', 10).text).toBe('a'.repeat(10))
  const second = newId('exec')
  const late = store.writer(second, 100)
  late.write(0, 'stdout', Buffer.from('lost'))
  expect((await late.close()).bytes).toBe(0)
})

describe('the sync of output', () => {
  it('begins while a run goes on, so that its end waits for the rest only, and tells of a write the disk lost', async () => {
    const dir = folder()
    const path = join(dir, 'bytes')
    const file = openSync(path, 'w')
    const syncer = openSyncer([file], dir)
    await syncer.finish()
    writeSync(file, 'one')
    syncer.touch()
    await new Promise((resolve) => setTimeout(resolve, 30))
    writeSync(file, 'two')
    syncer.touch()
    closeSync(file)
    // What the descriptor was is gone: the last write cannot be said to be on disk.
    await expect(syncer.finish()).rejects.toMatchObject({ code: 'ledger_unavailable' })
    await expect(syncer.finish()).rejects.toMatchObject({ code: 'ledger_unavailable' })
  })
})
