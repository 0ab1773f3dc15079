// Builds native/: the Rego tools as one wasip1 module and the sandbox agent for each architecture, committed compressed.
// With --check: rebuilds and compares the uncompressed digests with the committed ones (compressed bytes may differ
// between versions of brotli). Names given build those alone.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { brotliCompressSync, brotliDecompressSync, constants } from 'node:zlib'

const native = join(dirname(dirname(fileURLToPath(import.meta.url))), 'native')
const check = process.argv.includes('--check')
const asked = process.argv.slice(2).filter((word) => !word.startsWith('--'))

const built = [
  { name: 'rego-tools.wasm', from: 'rego-tools', env: { GOOS: 'wasip1', GOARCH: 'wasm', GOWASM: '' } },
  { name: 'sandbox-agent-amd64', from: 'sandbox-agent', env: { GOOS: 'linux', GOARCH: 'amd64', GOAMD64: 'v1' } },
  { name: 'sandbox-agent-arm64', from: 'sandbox-agent', env: { GOOS: 'linux', GOARCH: 'arm64', GOARM64: 'v8.0' } },
].filter(({ name }) => asked.length === 0 || asked.includes(name))

const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex')

function build({ from, env }) {
  const folder = mkdtempSync(join(tmpdir(), 'writ-native-'))
  try {
    const out = join(folder, 'built')
    const go = spawnSync(
      'go',
      ['build', '-mod=readonly', '-trimpath', '-buildvcs=false', '-ldflags=-s -w -buildid=', '-o', out, `./${from}`],
      {
        cwd: native,
        stdio: 'inherit',
        env: { ...process.env, CGO_ENABLED: '0', GOFLAGS: '', GOEXPERIMENT: '', GOFIPS140: 'off', ...env },
      },
    )
    if (go.error?.code === 'ENOENT')
      throw new Error('Go is not installed; native/go.mod names the version that is needed')
    if (go.status !== 0) throw new Error(`go build ended with ${go.status}`)
    return readFileSync(out)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

try {
  if (built.length === 0) throw new Error(`nothing is named ${asked.join(', ')}`)
  for (const one of built) {
    const packed = join(native, one.from, `${one.name}.br`)
    const listed = join(native, one.from, `${one.name}.sha256`)
    const file = build(one)
    const digest = sha256(file)
    if (check) {
      const expected = readFileSync(listed, 'utf8').trim()
      const committed = sha256(brotliDecompressSync(readFileSync(packed)))
      const same = digest === expected && committed === expected
      console.log(
        `${one.name}\nlisted    ${expected}\ncommitted ${committed}\nrebuilt   ${digest}\n${same ? 'same' : 'DIFFERENT'}`,
      )
      if (!same) process.exitCode = 1
    } else {
      const bytes = brotliCompressSync(file, {
        params: {
          [constants.BROTLI_PARAM_QUALITY]: 9,
          [constants.BROTLI_PARAM_LGWIN]: 24,
          [constants.BROTLI_PARAM_LARGE_WINDOW]: 0,
          [constants.BROTLI_PARAM_SIZE_HINT]: file.length,
        },
      })
      writeFileSync(packed, bytes)
      writeFileSync(listed, `${digest}\n`)
      console.log(`${one.name} ${digest}  ${file.length} bytes, compressed ${bytes.length}`)
    }
  }
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exitCode = 1
}
