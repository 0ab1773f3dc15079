import { Command, CommanderError } from 'commander'
import { visible } from '../approval/visible.ts'
import { WritError, type ErrorCode } from '../error.ts'
import { declare } from './commands.ts'
import type { Context } from './context.ts'

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
    .configureHelp({ showGlobalOptions: true })
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
    if (!(failure instanceof WritError)) throw failure
    if (asJson) sayError(failure.code, failure.message, failure.remedy)
    else process.stderr.write(visible(`writ: ${failure.message}\n      ${failure.remedy}\n`))
    return noes.has(failure.code) ? 1 : 2
  }
}

function sayError(code: ErrorCode, message: string, remedy: string): void {
  process.stdout.write(`${asciiJson({ error: { code, message, remedy } })}\n`)
}

/** Answers that are no, and not a fault of usage or configuration. */
const noes: ReadonlySet<ErrorCode> = new Set([
  'approval_refused',
  'conflict',
  'denied',
  'idempotency_conflict',
  'internal',
  'invalid_archive',
  'invalid_file',
  'invalid_policy',
  'not_found',
  'plan_changed',
  'rate_limited',
  'run_host_lost',
  'task_incomplete',
  'too_large',
  'unknown_intent',
  'unknown_target',
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
