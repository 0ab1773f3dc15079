import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { WritError } from './error.ts'

const version = (
  JSON.parse(readFileSync(join(dirname(dirname(fileURLToPath(import.meta.url))), 'package.json'), 'utf8')) as {
    readonly version: string
  }
).version

/** The relay and the broker are started often and by machines, so each loads only what it is made of. */
async function main(given: readonly string[]): Promise<number> {
  process.umask(0o077)
  const argv = configLast(given)
  if (argv[0] === 'mcp' && !argv.includes('--help') && !argv.includes('-h')) return await relayMain(argv.slice(1))
  if (argv[0] === 'serve' && !argv.includes('--help') && !argv.includes('-h')) return await serveMain(argv.slice(1))
  const { runCli } = await import('./cli/cli.ts')
  return await runCli(argv, { env: process.env, version, cwd: process.cwd() })
}

/** `--config F` may stand before the command too; the commands of this file read it behind. */
function configLast(argv: readonly string[]): readonly string[] {
  const [first, second] = argv
  if (first === '--config' && second !== undefined) return [...argv.slice(2), first, second]
  return first?.startsWith('--config=') === true ? [...argv.slice(1), first] : argv
}

/** `--config F` and nothing else but the flags a command knows. */
function options(
  argv: readonly string[],
  flags: readonly string[],
): { readonly config: string | undefined; readonly flags: ReadonlySet<string> } {
  const found = new Set<string>()
  let config: string | undefined
  for (let at = 0; at < argv.length; at++) {
    const word = argv[at] ?? ''
    if (word === '--config') config = argv[++at]
    else if (word.startsWith('--config=')) config = word.slice('--config='.length)
    else if (flags.includes(word)) found.add(word)
    else throw new WritError('usage', `unknown option "${word}"`)
  }
  return { config, flags: found }
}

function configFile(
  find: (where: { flag?: string | undefined; env: NodeJS.ProcessEnv; cwd: string }) => string | null,
  flag: string | undefined,
): string {
  const file = find({ flag, env: process.env, cwd: process.cwd() })
  if (file === null) throw new WritError('no_config', 'There is no writ.yaml here or in a folder above.')
  return file
}

async function relayMain(argv: readonly string[]): Promise<number> {
  const [{ findConfig, loadConfig }, { folderOf }, { relay }, { connectOrStart }] = await Promise.all([
    import('./config.ts'),
    import('./folder.ts'),
    import('./relay.ts'),
    import('./start.ts'),
  ])
  const { config } = options(argv, [])
  const file = configFile(findConfig, config)
  const folder = folderOf(loadConfig(file).data)
  await relay({
    connect: async () =>
      await connectOrStart({ configFile: file, socket: folder.mcpSocket, logFile: folder.log, env: process.env }),
    stdin: process.stdin,
    stdout: process.stdout,
    report: complain,
  })
  return 0
}

async function serveMain(argv: readonly string[]): Promise<number> {
  const [{ findConfig, loadConfig }, { serve }, { pino }, { heldExit }] = await Promise.all([
    import('./config.ts'),
    import('./serve.ts'),
    import('pino'),
    import('./start.ts'),
  ])
  const { config, flags } = options(argv, ['--detached'])
  const detached = flags.has('--detached')
  // Detached, standard output is the log file the starter opened.
  const log = pino(
    { base: { pid: process.pid }, timestamp: pino.stdTimeFunctions.isoTime },
    pino.destination({ fd: detached ? 1 : 2, sync: true }),
  )
  try {
    const file = configFile(findConfig, config)
    const env = new Map(
      Object.entries(process.env).flatMap(([name, value]) => (value === undefined ? [] : [[name, value] as const])),
    )
    const served = await serve(loadConfig(file), { log, env, version, idle: detached })
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void served.stop())
    await served.stopped
    return 0
  } catch (failure) {
    if (detached) log.fatal({ err: failure }, failure instanceof Error ? failure.message : 'the broker could not start')
    if (failure instanceof WritError && failure.code === 'broker_running' && detached) return heldExit
    throw failure
  }
}

function complain(failure: unknown): void {
  if (failure instanceof WritError) process.stderr.write(`writ: ${failure.message}\n      ${failure.remedy}\n`)
  else
    process.stderr.write(`writ: ${failure instanceof Error ? (failure.stack ?? failure.message) : String(failure)}\n`)
}

try {
  process.exitCode = await main(process.argv.slice(2))
} catch (failure) {
  complain(failure)
  process.exitCode = failure instanceof WritError ? 2 : 1
}
