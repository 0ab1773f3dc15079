import { afterAll, describe, expect, test } from 'vitest'
import type { Outcome } from '../../../src/execution/job.ts'
import { createIsolateExecutor } from '../../../src/executor/isolate/isolate.ts'
import { listen, prepare } from '../fixture.ts'
import type { Project, Seen } from '../fixture.ts'

const env = { PATH: '/usr/bin:/bin', HOME: '/', LANG: 'C.UTF-8' }
const executor = createIsolateExecutor({ env, owner: `guest${process.pid}` })
afterAll(async () => await executor.close())

async function run(files: Project['files']): Promise<{ outcome: Outcome; seen: Seen }> {
  const prepared = prepare({ files, argv: [['a.js']] })
  const seen = listen(prepared)
  return { outcome: await executor.run(prepared.job, seen.io), seen }
}

const passed = { end: 'exited', reason: null, steps: [{ exit: 0 }] }

describe('a script in an isolate', () => {
  test('ends when all is done, whatever time a signal was given to abort', async () => {
    const { outcome, seen } = await run({
      'a.js': `const signal = AbortSignal.timeout(15_000)\nconsole.log((await fetch('http://127.0.0.1:3128/x/', { signal })).status)\nconst soon = AbortSignal.timeout(30)\nawait new Promise((resolve) => soon.addEventListener('abort', resolve))\nconsole.log('aborted')`,
    })
    expect(seen.text()).toBe('403\naborted\n')
    expect(outcome).toMatchObject(passed)
    expect((outcome as Outcome & { end: 'exited' }).steps[0]?.ms).toBeLessThan(10_000)
  })

  test('prints the message of an error whole, whatever words are in it', async () => {
    const { seen } = await run({
      'a.js': `console.log(new Error('writ: one\\nwrit: two'))\nthrow new Error('cannot read\\nattend writ:x')`,
    })
    expect(seen.text('stdout')).toBe('Error: writ: one\nwrit: two\n    at a.js:1:13\n')
    expect(seen.text('stderr')).toBe('Uncaught Error: cannot read\nattend writ:x\n    at a.js:2:7\n')
  })

  test('has the parameters of a URL follow it, and names and values of any kind', async () => {
    const { seen } = await run({
      'a.js': `const url = new URL('http://a.test/?x=1')\nconst params = url.searchParams\nurl.search = '?x=2'\nparams.append('y', 1)\nconsole.log(url.href, params.get('x'))\nurl.href = 'http://b.test/?z=1'\nconsole.log(params === url.searchParams, String(params))\nconst many = new URLSearchParams('a=1&a=2&1=x')\nmany.delete('a', '1')\nconsole.log(String(many), many.get(1), many.has('a', 9), many.has('a', 2))\nmany.delete('a')\nconsole.log(String(many), many.get('a'))`,
    })
    expect(seen.text().split('\n')).toEqual([
      'http://a.test/?x=2&y=1 2',
      'true z=1',
      'a=2&1=x x false true',
      '1=x null',
      '',
    ])
  })

  test('decodes text that comes in pieces, and takes a byte order mark for none of it', async () => {
    const prepared = prepare({
      files: {
        'a.js': `const bytes = new TextEncoder().encode('\\ufeffa\\ufeffé€😀')\nconst decoder = new TextDecoder()\nlet text = ''\nfor (const byte of bytes) text += decoder.decode(new Uint8Array([byte]), { stream: true })\nconsole.log(text + decoder.decode() === 'a\\ufeffé€😀')\nconsole.log(decoder.decode(bytes.subarray(0, 8), { stream: true }).length, JSON.stringify(decoder.decode()), decoder.decode(bytes).length)\nconst bad = new TextDecoder('utf-8', { fatal: true })\nbad.decode(bytes.subarray(0, 8), { stream: true })\ntry { bad.decode() } catch (error) { console.log(error.name, bad.decode(bytes.subarray(0, 4))) }\nconsole.log((await (await fetch('http://127.0.0.1:3128/x/')).json()).n)`,
      },
      argv: [['a.js']],
    })
    const seen = listen(prepared, {
      fetch: () => Promise.resolve({ status: 200, headers: [], body: Buffer.from('\ufeff{"n": 1}') }),
    })
    expect(await executor.run(prepared.job, seen.io)).toMatchObject(passed)
    expect(seen.text().split('\n')).toEqual(['true', '2 "\ufffd" 6', 'TypeError a', '1', ''])
  })

  test('prints a text that stands alone as it is, and of `console.dir` the value only', async () => {
    const { seen } = await run({
      'a.js': `console.log('for %%f in (*) 100%% %s')\nconsole.log('%s is %d%%', 'x', 5, 'more')\nconsole.dir({ a: 1 }, { depth: null })`,
    })
    expect(seen.text().split('\n')).toEqual(['for %%f in (*) 100%% %s', 'x is 5% more', '{ a: 1 }', ''])
  })

  test('names what an abort throws as everywhere, and lets none end a run by a request that was refused', async () => {
    const { outcome, seen } = await run({
      'a.js': `const aborting = new AbortController()\nconst { signal } = aborting\ntry { await fetch('http://127.0.0.1:3128/' + 'a'.repeat(20_000), { signal }) } catch (error) { console.log(error.message) }\naborting.abort()\nawait new Promise((resolve) => setTimeout(resolve, 20))\nfor (const one of [signal, AbortSignal.timeout(0)]) {\n  await new Promise((resolve) => setTimeout(resolve, 20))\n  try { await fetch('http://127.0.0.1:3128/x/', { signal: one }) } catch (error) { console.log(error.name, error instanceof Error) }\n}`,
    })
    expect(outcome).toMatchObject(passed)
    expect(seen.text().split('\n')).toEqual([
      'the URL is longer than 16384 characters',
      'AbortError true',
      'TimeoutError true',
      '',
    ])
  })

  test('reads an output back by the name it was written with', async () => {
    const { outcome, seen } = await run({
      'a.js': `const name = '/out/cafe\\u0301.txt'\nwrit.writeFile(name, 'x')\nconsole.log(writ.readText(name), writ.readText('/out/caf\\u00e9.txt'))`,
    })
    expect(outcome).toMatchObject(passed)
    expect(seen.text()).toBe('x x\n')
  })

  test('has what ordinary code calls of its globals', async () => {
    const { outcome, seen } = await run({
      'a.js': `const aborting = new AbortController()\nconst heard = () => console.log('heard')\naborting.signal.addEventListener('abort', heard)\naborting.signal.removeEventListener('abort', heard)\naborting.abort()\nconst headers = new Headers({ A: '1', B: '2' })\nconsole.log([...headers.keys()], [...headers.values()])\nconsole.groupCollapsed('group')\nconsole.count()\nconsole.countReset()\nconsole.count()\nconsole.groupEnd()\nconsole.time('t')\nconsole.timeLog('t', 'on')\nconsole.timeEnd('t')`,
    })
    expect(outcome).toMatchObject(passed)
    expect(seen.text().replaceAll(/\d+ms/g, 'ms').split('\n')).toEqual([
      "[ 'a', 'b' ] [ '1', '2' ]",
      'group',
      'default: 1',
      'default: 1',
      't: ms on',
      't: ms',
      '',
    ])
  })

  test('decodes, encodes and parses as the web does', async () => {
    const { seen } = await run({
      'a.js': `const t = 'aé€😀\\ud800'
        console.log(new TextDecoder().decode(new TextEncoder().encode(t)) === 'aé€😀\\ufffd', btoa('\\xff\\x00a'), atob('/wBh').length)
        console.log(new TextDecoder().decode(new Uint8Array([0xf0, 0x9f, 0x98, 0x61, 0xc0, 0x80])))
        const u = new URL('../b?x=1#h', 'https://u:p@example.test:8443/a/c'); u.searchParams.append('y', 'é &'); u.pathname = '/z'
        console.log(u.href, u.origin, new URLSearchParams('a=%E2%82%AC+b&a=2').getAll('a'))
        console.log([...new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode('abc')))].slice(0, 4))
        const c = structuredClone({ d: new Date(0), m: new Map([[1, new Set([2])]]) }); console.log(c.d.getTime(), c.m.get(1).has(2))`,
    })
    expect(seen.text('stderr')).toBe('')
    expect(seen.text().split('\n')).toEqual([
      'true /wBh 3',
      '\ufffda\ufffd\ufffd',
      "https://u:p@example.test:8443/z?x=1&y=%C3%A9+%26#h https://example.test:8443 [ '€ b', '2' ]",
      '[ 186, 120, 22, 191 ]',
      '0 true',
      '',
    ])
  })

  test('sends more requests than may be under way together, each in its turn', async () => {
    const prepared = prepare({
      files: {
        'a.js': `const all = Array.from({ length: 150 }, async (_, at) => await (await fetch('http://127.0.0.1:3128/x/' + at)).text())\nconst got = await Promise.all(all)\nconsole.log(got.every((text, at) => text.endsWith('/' + at)))`,
      },
      argv: [['a.js']],
    })
    let under = 0
    let most = 0
    const seen = listen(prepared, {
      async fetch({ url }) {
        most = Math.max(most, ++under)
        await new Promise((resolve) => setTimeout(resolve, 50))
        under--
        return { status: 200, headers: [], body: Buffer.from(url) }
      },
    })
    expect(await executor.run(prepared.job, seen.io)).toMatchObject(passed)
    expect(seen.text()).toBe('true\n')
    // The gateway refuses more.
    expect(most).toBeLessThanOrEqual(32)
  })

  test('gives no step the answer to what another asked for', async () => {
    const prepared = prepare({
      files: {
        'one.js': `fetch('http://127.0.0.1:3128/x/one')\nsetTimeout(() => writ.exit(0), 50)`,
        'two.js': `console.log(await (await fetch('http://127.0.0.1:3128/x/two')).text())`,
      },
      argv: [['one.js'], ['two.js']],
    })
    const ended: string[] = []
    const seen = listen(prepared, {
      async fetch({ url }, signal) {
        signal.addEventListener('abort', () => ended.push(url))
        await new Promise((resolve) => setTimeout(resolve, url.endsWith('one') ? 400 : 800))
        return { status: 200, headers: [], body: Buffer.from(url) }
      },
    })
    expect(await executor.run(prepared.job, seen.io)).toMatchObject({
      end: 'exited',
      steps: [{ exit: 0 }, { exit: 0 }],
    })
    expect(seen.text()).toBe('http://127.0.0.1:3128/x/two\n')
    expect(ended).toEqual(['http://127.0.0.1:3128/x/one'])
  })
})
