import { Command, CommanderError } from 'commander'
import { visible } from '../approval/visible.ts'
import { systemCode, WritError, type ErrorCode } from '../error.ts'
import { declare } from './commands.ts'
import { type Context, exitOf } from './context.ts'
import { optionDescription } from './help.ts'
import { forPeople } from './people.ts'

interface Given {
  readonly env: Readonly<Record<string, string | undefined>>
  readonly cwd: string
  readonly version: string
}

/** Exit 0 done, 1 the answer is no, 2 wrong usage or configuration. */
export async function runCli(argv: readonly string[], given: Given): Promise<number> {
  let exit = 0
  const asJson = argv.includes('--json')
  // A reader that has seen enough (`writ … | head`) is not a fault.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 2))
  const program = new Command('writ')
    .description('Runs what agents ask for, if policy allows and people approve, and proves it with signed receipts.')
    .version(given.version, '-V, --version')
    .option('--config <file>', 'the writ.yaml to use (else WRIT_CONFIG, else the nearest one upward)')
    .configureHelp({ showGlobalOptions: true, optionDescription })
    .addHelpText('after', '\nExit status: 0 done, 1 the answer is no, 2 wrong usage or configuration.')
  declare(program, async (command, use) => {
    exit = await use(contextOf(given, command))
  })
  everyCommand(program, (command) => {
    command
      .exitOverride()
      .showSuggestionAfterError()
      .configureOutput({ writeErr: (text) => void (asJson || process.stderr.write(visible(text))) })
  })
  try {
    await program.parseAsync([...argv], { from: 'user' })
    return exit
  } catch (failure) {
    if (failure instanceof CommanderError) {
      if (failure.exitCode === 0) return 0
      const message = failure.message === '(outputHelp)' ? 'a command is missing' : failure.message
      if (asJson) sayError('usage', message.replace(/^error: /, ''), 'See --help.')
      return 2
    }
    const known = failure instanceof WritError ? failure : systemFault(failure)
    if (known === null) {
      if (asJson) sayError('internal', 'This command failed inside Writ; standard error says where.', 'Report it.')
      throw failure
    }
    const [message, remedy] = [forPeople(known.message), forPeople(known.remedy)]
    if (asJson) sayError(known.code, message, remedy)
    else process.stderr.write(visible(`writ: ${message}\n${remedy === '' ? '' : `      ${remedy}\n`}`))
    return exitOf(known.code)
  }
}

function sayError(code: ErrorCode, message: string, remedy: string): void {
  process.stdout.write(`${asciiJson({ error: { code, message, remedy } })}\n`)
}

/** What the system would not do with a path, in words, where it says so; null for anything else. */
function systemFault(failure: unknown): WritError | null {
  const code = systemCode(failure)
  if (code === null || !(failure instanceof Error) || !('syscall' in failure)) return null
  const { path, dest } = failure as NodeJS.ErrnoException & { readonly dest?: string }
  const where = dest ?? path ?? String(failure.syscall)
  if (code === 'ENOSPC' || code === 'EDQUOT')
    return new WritError('no_space', `${where}: there is no room (${code}).`, {
      remedy: 'Free space on that disk, or take another folder.',
      cause: failure,
    })
  const why = systemWords.get(code) ?? 'the system refuses it'
  return new WritError('usage', `${where}: ${why} (${code}).`, {
    remedy: 'Check the path, and that you may read and write there.',
    cause: failure,
  })
}

const systemWords: ReadonlyMap<string, string> = new Map([
  ['EACCES', 'you may not'],
  ['EPERM', 'you may not'],
  ['EROFS', 'that disk cannot be written'],
  ['ENOENT', 'it is not there, and cannot be made'],
  ['ENOTDIR', 'a part of the path is a file, not a folder'],
  ['EEXIST', 'something else stands there'],
  ['EISDIR', 'it is a folder'],
  ['ENOTEMPTY', 'it is not empty'],
  ['ENAMETOOLONG', 'the name is too long'],
  ['ELOOP', 'its links lead in a circle'],
])

function everyCommand(command: Command, use: (command: Command) => void): void {
  use(command)
  for (const child of command.commands) everyCommand(child, use)
}

/** JSON that a terminal shows and does not obey: what could be invisible or a control is escaped, and parses to the same. */
function asciiJson(data: unknown): string {
  return JSON.stringify(data, null, 2).replace(
    /[^\n -~]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}

/** Whatever a command says passes here: text of callers, runs and receipts never reaches a terminal raw. */
function contextOf(given: Given, command: Command): Context {
  const { config, json }: { readonly config?: string; readonly json?: boolean } = command.optsWithGlobals()
  return {
    ...given,
    stdin: process.stdin,
    configFlag: config,
    json: json === true,
    tty: process.stdin.isTTY,
    columns: process.stderr.isTTY && process.stderr.columns > 0 ? process.stderr.columns : null,
    say: (text) => void process.stdout.write(`${visible(text)}\n`),
    note: (text) => void process.stderr.write(`${visible(text)}\n`),
    data: (data) => void process.stdout.write(`${asciiJson(data)}\n`),
  }
}
