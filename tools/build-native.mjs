// Builds native/: the Rego tools as one wasip1 module, committed compressed. With --check: rebuilds and compares the
// uncompressed digest with the committed one (compressed bytes may differ between versions of brotli).
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { brotliCompressSync, brotliDecompressSync, constants } from 'node:zlib'

const native = join(dirname(dirname(fileURLToPath(import.meta.url))), 'native')
const packed = join(native, 'rego-tools', 'rego-tools.wasm.br')
const listed = join(native, 'rego-tools', 'rego-tools.wasm.sha256')
const check = process.argv.includes('--check')

const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex')

function build() {
  const folder = mkdtempSync(join(tmpdir(), 'writ-native-'))
  try {
    const out = join(folder, 'rego-tools.wasm')
    const go = spawnSync(
      'go',
      ['build', '-mod=readonly', '-trimpath', '-buildvcs=false', '-ldflags=-s -w -buildid=', '-o', out, './rego-tools'],
      {
        cwd: native,
        stdio: 'inherit',
        env: {
          ...process.env,
          GOOS: 'wasip1',
          GOARCH: 'wasm',
          CGO_ENABLED: '0',
          GOFLAGS: '',
          GOWASM: '',
          GOEXPERIMENT: '',
        },
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
  const wasm = build()
  const digest = sha256(wasm)
  if (check) {
    const expected = readFileSync(listed, 'utf8').trim()
    const committed = sha256(brotliDecompressSync(readFileSync(packed)))
    const same = digest === expected && committed === expected
    console.log(`listed    ${expected}\ncommitted ${committed}\nrebuilt   ${digest}\n${same ? 'same' : 'DIFFERENT'}`)
    process.exitCode = same ? 0 : 1
  } else {
    const bytes = brotliCompressSync(wasm, {
      params: {
        [constants.BROTLI_PARAM_QUALITY]: 9,
        [constants.BROTLI_PARAM_LGWIN]: 24,
        [constants.BROTLI_PARAM_LARGE_WINDOW]: 0,
        [constants.BROTLI_PARAM_SIZE_HINT]: wasm.length,
      },
    })
    writeFileSync(packed, bytes)
    writeFileSync(listed, `${digest}\n`)
    console.log(`${digest}  ${wasm.length} bytes, compressed ${bytes.length}`)
  }
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exitCode = 1
}
