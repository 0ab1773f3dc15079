import { lstatSync, readFileSync } from 'node:fs'
import { enableCompileCache, flushCompileCache } from 'node:module'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { WritError } from './error.ts'
import { makeFolders } from './folder.ts'

const version = (
  JSON.parse(readFileSync(join(dirname(dirname(fileURLToPath(import.meta.url))), 'package.json'), 'utf8')) as {
    readonly version: string
  }
).version

/**
 * Keeps compiled code between starts, which halves them. What lies there is run, so the folder has to be this user's and
 * nobody else's to write; where it cannot be had, every start compiles anew and nothing else differs.
 */
function keepCode(): void {
  const folder = join(process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'writ', 'code')
  try {
    makeFolders(folder, 0o700)
    const found = lstatSync(folder)
    const private_ = found.isDirectory() && found.uid === process.getuid?.() && (found.mode & 0o077) === 0
    if (private_) enableCompileCache(folder)
  } catch {
    // A home folder that does not exist or cannot be written is no reason not to start.
  }
}

/** The relay and the broker are started often and by machines, so each loads only what it is made of. */
async function main(given: readonly string[]): Promise<number> {
  process.umask(0o077)
  // Nobody reads progress and complaints any more: that ends neither a relay nor a command whose answer somebody reads.
  process.stderr.on('error', () => undefined)
  keepCode()
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

interface Options {
  readonly config: string | undefined
  readonly listen: string | undefined
  readonly flags: ReadonlySet<string>
}

/** `--config F` and nothing else but what a command knows. */
function options(
  argv: readonly string[],
  known: { readonly flags: readonly string[]; readonly listen: boolean },
): Options {
  const flags = new Set<string>()
  const values = new Map<string, string>()
  const named = known.listen ? ['--config', '--listen'] : ['--config']
  for (let at = 0; at < argv.length; at++) {
    const word = argv[at] ?? ''
    const name = word.split('=', 1)[0] ?? ''
    if (known.flags.includes(word)) flags.add(word)
    else if (!named.includes(name)) throw new WritError('usage', `unknown option "${word}"`)
    else {
      const value = word === name ? argv[++at] : word.slice(name.length + 1)
      if (value === undefined || value === '' || value.startsWith('--'))
        throw new WritError('usage', `${name} needs a value`)
      values.set(name, value)
    }
  }
  return { config: values.get('--config'), listen: values.get('--listen'), flags }
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
  const { config } = options(argv, { flags: [], listen: false })
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
  const [{ findConfig, loadConfig }, { parseListen, standardListen }, { serve }, { pino }, { heldExit }] =
    await Promise.all([
      import('./config.ts'),
      import('./http/settings.ts'),
      import('./serve.ts'),
      import('pino'),
      import('./start.ts'),
    ])
  const { config, listen, flags } = options(argv, { flags: ['--detached'], listen: true })
  const detached = flags.has('--detached')
  // Node opens an inspector on it, in which everything the broker holds could be read. Started by a client it has a flag for that.
  process.on('SIGUSR1', () => undefined)
  // Detached, standard output is the log file the starter opened.
  const destination = pino.destination({ fd: detached ? 1 : 2, sync: true, maxLength: 1 << 20 })
  // A log that finds no room must not end the broker: what has to be kept is in the ledger.
  destination.on('error', () => undefined)
  const log = pino({ base: { pid: process.pid }, timestamp: pino.stdTimeFunctions.isoTime }, destination)
  try {
    const file = configFile(findConfig, config)
    const env = new Map(
      Object.entries(process.env).flatMap(([name, value]) => (value === undefined ? [] : [[name, value] as const])),
    )
    const where = listen === undefined || listen === 'none' ? null : parseListen(listen)
    if (where === null && listen !== undefined && listen !== 'none')
      throw new WritError('usage', '--listen takes HOST:PORT, with an IP address or "localhost" as HOST, or "none"')
    const given = loadConfig(file, where)
    // In the foreground there is HTTP unless told otherwise; whoever was started for one client serves what the file says.
    const implied = given.http === null && !detached && listen === undefined
    const read = implied ? loadConfig(file, standardListen) : listen === 'none' ? { ...given, http: null } : given
    const served = await serve(read, { log, env, version, idle: detached, httpImplied: implied })
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void served.stop())
    // Kept at exit otherwise, and a broker may be killed.
    setTimeout(flushCompileCache, 1000).unref()
    await served.stopped
    return 0
  } catch (failure) {
    // Not `fatal`, which would wait for ever for a disk without room.
    if (detached) log.error({ err: failure }, failure instanceof Error ? failure.message : 'the broker could not start')
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
  // Not left to end by itself: what a broker has opened by then would keep it, and its folder locked.
  process.exit(failure instanceof WritError ? 2 : 1)
}
