import { Command, CommanderError, InvalidArgumentError } from 'commander'
import { WritError, type ErrorCode } from '../error.ts'
import { approvalsAnswer, approvalsEnroll, approvalsList, approvalsShow, type ApproveOptions } from './approvals.ts'
import type { Context } from './context.ts'
import { doctor } from './doctor.ts'
import { init } from './init.ts'
import { policyBuild, policyCheck, policyEval, policyFormat, policyTest } from './policy.ts'
import * as read from './read.ts'
import { run, type RunOptions } from './run.ts'
import { verify } from './verify.ts'

interface Given {
  readonly env: Readonly<Record<string, string | undefined>>
  readonly cwd: string
  readonly version: string
}

/** Exit 0 done, 1 the answer is no, 2 wrong usage or configuration. */
export async function runCli(argv: readonly string[], given: Given): Promise<number> {
  let exit = 0
  const program = new Command('writ')
  const done =
    <A extends unknown[]>(action: (context: Context, ...rest: A) => number | Promise<number>) =>
    async (...all: unknown[]): Promise<void> => {
      const command = all.at(-1) as Command
      const own = all.slice(0, -1) as A
      exit = await action(contextOf(given, command), ...own)
    }

  program
    .description('Runs what agents ask for, if policy allows and people approve, and proves it with signed receipts.')
    .version(given.version, '-V, --version')
    .option('--config <file>', 'the writ.yaml to use (else WRIT_CONFIG, else the nearest one upward)')
    .showSuggestionAfterError()
    .exitOverride()
    .configureHelp({ showGlobalOptions: true })
    .addHelpText('after', '\nExit status: 0 done, 1 the answer is no, 2 wrong usage or configuration.')

  json(program.command('init [dir]').description('write a first configuration, policies and keys; overwrites nothing')).action(
    done(async (context, dir: string | undefined) => await init(context, dir)),
  )
  program.command('mcp').description('what an MCP client starts: a relay from stdio to the broker, which is started where none runs')
  program.command('serve').description('run the broker in the foreground')
  json(program.command('stop').description('stop the broker; its runs are cancelled and accounted for')).action(done(async (context) => await read.stopBroker(context)))
  json(program.command('status').description('whether a broker runs, what it does, and which policy is in force')).action(done(async (context) => await read.status(context)))
  json(program.command('doctor').description('what this machine has and lacks, and how to get it')).action(done(async (context) => await doctor(context)))

  json(
    program
      .command('run <target> [files...]')
      .description('submit files to a target, wait, and print progress and result; the first file is the script')
      .requiredOption('--intent <intent>', 'what to do: an intent of the target')
      .option('--project <name>', 'name of the project (else the folder’s)')
      .option('--goal <text>', 'what it is for, in words; approvers read it')
      .option('--input <k=v>', 'an input of the intent; may be repeated', collect, [])
      .option('--again', 'run an unchanged plan once more')
      .option('--dry-run', 'only say what policy would answer')
      .option('--no-wait', 'print the ids and do not wait')
      .option('--out <dir>', 'write the files of the result there'),
  ).action(done(async (context, target: string, files: string[], options: RunOptions) => await run(context, target, files, options)))

  const targets = program.command('targets').description('what work can run on')
  json(targets.command('list').description('the targets of the catalog')).action(done((context) => read.targetsList(context)))

  const credentials = program.command('credentials').description('values that runs use and never see')
  json(credentials.command('list').description('the credentials of the catalog, and whether each has a value')).action(done(async (context) => await read.credentialsList(context)))
  json(credentials.command('set <name>').description('store a value, read from standard input only')).action(done(async (context, name: string) => await read.credentialsSet(context, name)))
  json(credentials.command('remove <name>').description('remove a stored value')).action(done(async (context, name: string) => await read.credentialsRemove(context, name)))

  const executions = program.command('executions').description('runs, live and past')
  json(executions.command('list').description('newest first').option('--limit <n>', 'how many', count, 20)).action(done((context, options: { limit: number }) => read.executionsList(context, options.limit)))
  json(executions.command('show <id>').description('all that is recorded of one')).action(done((context, id: string) => read.executionsShow(context, id)))
  json(executions.command('cancel <id>').description('cancel one that waits or runs')).action(done(async (context, id: string) => await read.executionsCancel(context, id)))

  const approvals = program.command('approvals').description('what people are asked')
  json(approvals.command('list').description('approvals that wait').option('--all', 'ended ones too')).action(done((context, options: { all?: boolean }) => approvalsList(context, options.all === true)))
  json(approvals.command('show <id>').description('everything that would run')).action(done(async (context, id: string) => await approvalsShow(context, id)))
  for (const verdict of ['approve', 'reject'] as const)
    json(
      approvals
        .command(`${verdict} <id>`)
        .description(`show everything that would run, then sign "${verdict}" with your own key`)
        .option('--as <name>', 'which approver you are, where several are enrolled')
        .option('--stage <id>', 'the stage to answer, where several wait for you')
        .option('--reason <text>', 'why; stands in the signed statement')
        .option('--key <file>', 'your key file, where it lies elsewhere')
        .option('--ssh-agent', 'sign with the key in your SSH agent')
        .option('--yes', 'with --ssh-agent: do not ask once more')
        .option('--passphrase-fd <n>', 'read the passphrase from this file descriptor', count),
    ).action(done(async (context, id: string, options: ApproveOptions) => await approvalsAnswer(context, id, verdict, options)))
  json(
    approvals
      .command('enroll <name>')
      .description('make a key for an approver and add the person to writ.yaml')
      .option('--role <role>', 'a role of this person; may be repeated (else approver)', collect, [])
      .option('--ssh-agent', 'take the Ed25519 key in your SSH agent instead of making one')
      .option('--passphrase-fd <n>', 'read the passphrase from this file descriptor', count)
      .option('--print', 'print the entry for writ.yaml instead of adding it'),
  ).action(done(async (context, name: string, options: Parameters<typeof approvalsEnroll>[2]) => await approvalsEnroll(context, name, options)))

  const policy = program.command('policy').description('write, check and try policies; without DIR, the packs writ.yaml attaches')
  json(policy.command('check [dirs...]').description('types, names, metadata, built-ins: everything a start would refuse')).action(done(async (context, dirs: string[]) => await policyCheck(context, dirs)))
  json(policy.command('test [dirs...]').description('run the *_test.rego of the packs').option('--run <regex>', 'only tests whose name matches')).action(
    done(async (context, dirs: string[], options: { run?: string }) => await policyTest(context, dirs, options.run)),
  )
  json(policy.command('fmt [dirs...]').description('format the Rego files').option('--check', 'write nothing; exit 1 where a file is not formatted')).action(
    done(async (context, dirs: string[], options: { check?: boolean }) => await policyFormat(context, dirs, options.check === true)),
  )
  json(policy.command('build [dirs...]').description('compile to WASM').option('--out <dir>', 'write the modules there')).action(
    done(async (context, dirs: string[], options: { out?: string }) => await policyBuild(context, dirs, options.out)),
  )
  json(policy.command('eval').description('decide an input with the attached packs').option('--input <file>', 'a writ.input/v1 document, - for standard input').option('--execution <id>', 'the recorded input of an execution; compares the answers')).action(
    done(async (context, options: { input?: string; execution?: string }) => await policyEval(context, options)),
  )

  const receipts = program.command('receipts').description('the signed account of everything')
  json(receipts.command('list').description('the newest receipts').option('--limit <n>', 'how many', count, 20).option('--jws', 'the whole log, one compact JWS a line, for an auditor')).action(
    done((context, options: { limit: number; jws?: boolean }) => (options.jws === true ? read.receiptsExport(context) : read.receiptsList(context, options.limit))),
  )
  json(receipts.command('show <id>').description('one receipt with what callers are not shown').option('--jws', 'the compact JWS alone')).action(
    done((context, id: string, options: { jws?: boolean }) => read.receiptsShow(context, id, options.jws === true)),
  )
  json(
    program
      .command('verify [file]')
      .description('verify a receipt, or with --log a whole log, offline; without FILE, the log of this configuration')
      .option('--root <thumbprint>', 'the root thumbprint you got out of band')
      .option('--jwks <file>', 'the key set to trust: keys.jwt or a JWKS')
      .option('--log', 'the file is a log: one receipt a line, from the first')
      .option('--approver <x>', 'public key of an approver; may be repeated', collect, []),
  ).action(done(async (context, file: string | undefined, options: Parameters<typeof verify>[2]) => await verify(context, file, options)))
  json(program.command('keys').description('the keys receipts are signed with').option('--fingerprint', 'the root thumbprint alone: what an auditor pins')).action(
    done((context, options: { fingerprint?: boolean }) => read.keysShow(context, options.fingerprint === true)),
  )

  everyCommand(program, (command) => command.exitOverride().showSuggestionAfterError())
  try {
    await program.parseAsync([...argv], { from: 'user' })
    return exit
  } catch (failure) {
    if (failure instanceof CommanderError) return failure.exitCode === 0 ? 0 : 2
    if (failure instanceof WritError) {
      if (argv.includes('--json')) process.stdout.write(`${JSON.stringify({ error: { code: failure.code, message: failure.message, remedy: failure.remedy } }, null, 2)}\n`)
      else process.stderr.write(`writ: ${failure.message}\n      ${failure.remedy}\n`)
      return isNo(failure.code) ? 1 : 2
    }
    throw failure
  }
}

/** Answers that are no, and not a fault of usage or configuration. */
function isNo(code: ErrorCode): boolean {
  return ['denied', 'approval_refused', 'not_found', 'conflict', 'invalid_file', 'invalid_archive', 'too_large', 'rate_limited', 'internal', 'invalid_policy'].includes(code)
}

function json(command: Command): Command {
  return command.option('--json', 'print data as JSON')
}

function everyCommand(command: Command, use: (command: Command) => void): void {
  use(command)
  for (const child of command.commands) everyCommand(child, use)
}

function collect(value: string, before: readonly string[]): readonly string[] {
  return [...before, value]
}

function count(text: string): number {
  const value = Number(text)
  if (!Number.isSafeInteger(value) || value < 0) throw new InvalidArgumentError('has to be a whole number.')
  return value
}

function contextOf(given: Given, command: Command): Context {
  const options: { readonly json?: boolean; readonly config?: string } = command.optsWithGlobals()
  return {
    env: given.env,
    cwd: given.cwd,
    version: given.version,
    stdin: process.stdin,
    configFlag: options.config,
    json: options.json === true,
    tty: process.stdin.isTTY,
    say: (text) => void process.stdout.write(`${text}\n`),
    note: (text) => void process.stderr.write(`${text}\n`),
  }
}
