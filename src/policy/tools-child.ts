import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { Worker } from 'node:worker_threads'
import { brotliDecompressSync } from 'node:zlib'
import { runWasi } from './wasi.ts'

/*
 * A process of its own that answers the requests on its standard input, one line of JSON each, with one line each, and
 * ends. Every request gets a fresh instance: a pack that breaks the compiler breaks it for itself. The broker holds the
 * clock and kills.
 */

const [, , file, expected, lifeMs] = process.argv
if (file === undefined || expected === undefined || !(Number(lifeMs) >= 0)) {
  throw new Error('usage: tools-child FILE SHA256 MILLISECONDS')
}

// The broker kills what is late; where the broker itself was killed, this thread does. The main one is blocked while a
// module runs.
new Worker(`setTimeout(() => process.kill(process.pid, 'SIGKILL'), ${Number(lifeMs)})`, { eval: true }).unref()

const maxReply = 64 * 1024 * 1024
/** Bytes the module may unpack to; the built one has 41 MB. */
const maxModule = 128 * 1024 * 1024

const wasm = brotliDecompressSync(readFileSync(file), { maxOutputLength: maxModule })
const actual = createHash('sha256').update(wasm).digest('hex')
if (actual !== expected) throw new Error('the Rego tools are not the ones this Writ was built with')
const module = await WebAssembly.compile(wasm)

async function answer(line: string): Promise<string> {
  try {
    const run = await runWasi(module, {
      args: ['rego-tools'],
      // A soft limit below the hard one of the process: Go collects before it fails.
      env: ['GOMEMLIMIT=640MiB'],
      stdin: Buffer.from(line),
      maxStdout: maxReply,
    })
    if (run.exit === 0) return `{"reply":${Buffer.from(run.stdout).toString('utf8').trim()}}`
    return JSON.stringify({ failed: run.stderr.split('\n')[0] ?? '' })
  } catch (error) {
    // A trap of the module (its stack or memory ran out) is the answer to this request and no end of the process.
    if (error instanceof WebAssembly.RuntimeError || error instanceof RangeError) {
      return JSON.stringify({ failed: error.message })
    }
    throw error
  }
}

async function say(text: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    process.stdout.write(`${text}\n`, (error) => (error ? reject(error) : resolve()))
  })
}

const lines = readFileSync(0, 'utf8').split('\n')
// From here on the broker's clock runs, anew for each request.
await say('{"ready":true}')
for (const line of lines) if (line !== '') await say(await answer(line))
