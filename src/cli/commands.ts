import type { Command } from 'commander'
import type { ApproveOptions } from './answer.ts'
import type { EnrollOptions } from './enroll.ts'
import { addHelp } from './help.ts'
import { declareImages } from './image-commands.ts'
import type { InitOptions } from './init.ts'
import { type Action, collect, count, type Leaf, type Run } from './leaf.ts'
import type { EvalOptions } from './replay.ts'
import type { RunOptions } from './run.ts'
import type { TokenOptions } from './token.ts'
import type { VerifyOptions } from './verify.ts'

/** All commands. Each loads what it is made of when it is called, so that none waits for what another needs. */
export function declare(program: Command, run: Run): void {
  const leaf = (parent: Command, name: string, about: string): Command =>
    parent.command(name).description(about).option('--json', 'print data as JSON')
  const action: Action =
    (use) =>
    async (...all) => {
      const command = all.at(-1) as Command
      await run(command, await use(...(all.slice(0, -1) as never[])))
    }
  broker(program, leaf, action)
  work(program, leaf, action)
  declareImages(program, leaf, action)
  approvals(program, leaf, action)
  tokens(program, leaf, action)
  policy(program, leaf, action)
  proof(program, leaf, action)
  addHelp(program)
}

function broker(program: Command, leaf: Leaf, action: Action): void {
  leaf(program, 'init [dir]', 'write a first configuration, policies and keys; overwrites nothing')
    .option('--with <part>', '"docker" for targets that run in containers, also where there is a catalog', collect, [])
    .action(
      action(async (dir: string | undefined, options: InitOptions) => {
        const { init } = await import('./init.ts')
        return async (context) => await init(context, dir, options)
      }),
    )
  // Both are started by main.ts before the command line is; they stand here for --help.
  program
    .command('mcp')
    .description('what an MCP client starts: a relay from stdio to the broker, which is started where none runs')
  program
    .command('serve')
    .description('run the broker in the foreground, with HTTP for remote clients')
    .option('--listen <address>', 'HOST:PORT, or "none" for no HTTP; 127.0.0.1:8720 unless writ.yaml says otherwise')
  leaf(program, 'stop', 'stop the broker; its runs are cancelled and accounted for').action(
    action(async () => (await import('./status.ts')).stopBroker),
  )
  leaf(program, 'status', 'whether a broker runs, what it does, and which policy is in force').action(
    action(async () => (await import('./status.ts')).status),
  )
  leaf(program, 'doctor', 'what this machine has and lacks, and how to get it').action(
    action(async () => (await import('./doctor.ts')).doctor),
  )
}

function work(program: Command, leaf: Leaf, action: Action): void {
  leaf(
    program,
    'run <target> [files...]',
    'submit files to a target, wait, and print progress and result; the first file is the script',
  )
    .requiredOption('--intent <intent>', 'what to do: an intent of the target')
    .option('--project <name>', 'name of the project (else the folder’s)')
    .option('--goal <text>', 'what it is for, in words; approvers read it')
    .option('--input <k=v>', 'an input of the intent; may be repeated', collect, [])
    .option('--again', 'run an unchanged plan once more')
    .option('--dry-run', 'only say what policy would answer')
    .option('--no-wait', 'print the ids and do not wait')
    .option('--out <dir>', 'write the files of the result there')
    .option('--url <url>', 'a Writ elsewhere, such as https://writ.example, instead of the one of this folder')
    .option('--token-file <file>', 'file with the token for it')
    .option('--ca <file>', 'PEM file of the authority its certificate comes from, instead of those Node brings')
    .action(
      action(async (target: string, files: string[], options: RunOptions) => {
        const { run } = await import('./run.ts')
        return async (context) => await run(context, target, files, options)
      }),
    )

  const targets = program.command('targets').description('what work can run on')
  leaf(targets, 'list', 'the targets of the catalog').action(
    action(async () => (await import('./targets.ts')).targetsList),
  )

  const credentials = program.command('credentials').description('values that runs use and never see')
  leaf(credentials, 'list', 'the credentials of the catalog, and whether each has a value').action(
    action(async () => (await import('./credentials.ts')).credentialsList),
  )
  leaf(credentials, 'set <name>', 'store a value, read from standard input only').action(
    action(async (name: string) => {
      const { credentialsSet } = await import('./credentials.ts')
      return async (context) => await credentialsSet(context, name)
    }),
  )
  leaf(credentials, 'remove <name>', 'remove a stored value').action(
    action(async (name: string) => {
      const { credentialsRemove } = await import('./credentials.ts')
      return async (context) => await credentialsRemove(context, name)
    }),
  )

  const executions = program.command('executions').description('runs, live and past')
  leaf(executions, 'list', 'newest first')
    .option('--limit <n>', 'how many', count, 20)
    .action(
      action(async (options: { limit: number }) => {
        const { executionsList } = await import('./executions.ts')
        return (context) => executionsList(context, options.limit)
      }),
    )
  leaf(executions, 'show <id>', 'all that is recorded of one').action(
    action(async (id: string) => {
      const { executionsShow } = await import('./executions.ts')
      return (context) => executionsShow(context, id)
    }),
  )
  leaf(executions, 'cancel <id>', 'cancel one that waits or runs')
    .option('--reason <text>', 'why; its owner is told, and it is recorded')
    .action(
      action(async (id: string, options: { reason?: string }) => {
        const { executionsCancel } = await import('./executions.ts')
        return async (context) => await executionsCancel(context, id, options)
      }),
    )
}

function approvals(program: Command, leaf: Leaf, action: Action): void {
  const group = program.command('approvals').description('what people are asked')
  leaf(group, 'list', 'approvals that wait')
    .option('--all', 'ended ones too')
    .action(
      action(async (options: { all?: boolean }) => {
        const { approvalsList } = await import('./approvals.ts')
        return (context) => approvalsList(context, options.all === true)
      }),
    )
  leaf(group, 'show <id>', 'everything that would run')
    .option('--file <path>', 'one file of the plan instead, whole, however large and whatever it holds')
    .action(
      action(async (id: string, options: { file?: string }) => {
        const { approvalsFile, approvalsShow } = await import('./approvals.ts')
        return async (context) =>
          await (options.file === undefined ? approvalsShow(context, id) : approvalsFile(context, id, options.file))
      }),
    )
  for (const verdict of ['approve', 'reject'] as const)
    leaf(group, `${verdict} <id>`, `show everything that would run, then sign "${verdict}" with your own key`)
      .option('--as <name>', 'which approver you are, where several are enrolled')
      .option('--stage <id>', 'the stage to answer, where several wait for you')
      .option('--reason <text>', 'why; stands in the signed statement')
      .option('--key <file>', 'your key file, where it lies elsewhere')
      .option('--ssh-agent', 'sign with the key in your SSH agent')
      .option('--yes', 'with --ssh-agent: do not ask once more')
      .option('--passphrase-fd <n>', 'read the passphrase from this file descriptor', count)
      .action(
        action(async (id: string, options: ApproveOptions) => {
          const { approvalsAnswer } = await import('./answer.ts')
          return async (context) => await approvalsAnswer(context, id, verdict, options)
        }),
      )
  leaf(group, 'enroll <name>', 'make a key for an approver and add the person to writ.yaml')
    .option('--role <role>', 'a role of this person; may be repeated (else approver)', collect, [])
    .option('--ssh-agent', 'take the Ed25519 key in your SSH agent instead of making one')
    .option('--passphrase-fd <n>', 'read the passphrase from this file descriptor', count)
    .option('--print', 'print the entry for writ.yaml instead of adding it')
    .action(
      action(async (name: string, options: EnrollOptions) => {
        const { approvalsEnroll } = await import('./enroll.ts')
        return async (context) => await approvalsEnroll(context, name, options)
      }),
    )
}

function tokens(program: Command, leaf: Leaf, action: Action): void {
  const group = program.command('token').description('what remote clients prove who they are with')
  leaf(group, 'create', 'make a token and print it, once')
    .requiredOption('--subject <name>', 'who acts: a person, or with --service a service')
    .option('--service', 'the subject is a service, not a person')
    .option('--agent <name>', 'the agent that acts for the subject (else SUBJECT-agent)')
    .option('--tenant <name>', 'whose things it sees', 'default')
    .option('--role <role>', 'a role it gives; may be repeated; policies say what a role may', collect, [])
    .option('--expires <time>', 'how long it is valid: 12h, 30d …; at most 366d', '30d')
    .action(
      action(async (options: TokenOptions) => {
        const { tokenCreate } = await import('./token.ts')
        return async (context) => await tokenCreate(context, options)
      }),
    )
  leaf(group, 'list', 'all tokens, newest first; never the tokens themselves').action(
    action(async () => (await import('./token.ts')).tokenList),
  )
  leaf(group, 'revoke <id>', 'end a token at once, and what is open under it').action(
    action(async (id: string) => {
      const { tokenRevoke } = await import('./token.ts')
      return async (context) => await tokenRevoke(context, id)
    }),
  )
}

function policy(program: Command, leaf: Leaf, action: Action): void {
  const group = program
    .command('policy')
    .description('write, check and try policies; without DIR, the packs writ.yaml attaches')
  leaf(group, 'check [dirs...]', 'types, names, metadata, built-ins: everything a start would refuse').action(
    action(async (dirs: string[]) => {
      const { policyCheck } = await import('./policy.ts')
      return async (context) => await policyCheck(context, dirs)
    }),
  )
  leaf(group, 'test [dirs...]', 'run the *_test.rego of the packs')
    .option('--run <regex>', 'only tests whose name matches')
    .action(
      action(async (dirs: string[], options: { run?: string }) => {
        const { policyTest } = await import('./policy.ts')
        return async (context) => await policyTest(context, dirs, options.run)
      }),
    )
  leaf(group, 'fmt [dirs...]', 'format the Rego files')
    .option('--check', 'write nothing; exit 1 where a file is not formatted')
    .action(
      action(async (dirs: string[], options: { check?: boolean }) => {
        const { policyFormat } = await import('./policy.ts')
        return async (context) => await policyFormat(context, dirs, options.check === true)
      }),
    )
  leaf(group, 'build [dirs...]', 'compile to WASM')
    .option('--out <dir>', 'write the modules there')
    .action(
      action(async (dirs: string[], options: { out?: string }) => {
        const { policyBuild } = await import('./policy.ts')
        return async (context) => await policyBuild(context, dirs, options.out)
      }),
    )
  leaf(group, 'eval', 'decide an input, or make a recorded decision again')
    .option('--input <file>', 'a writ.input/v1 document, - for standard input, by the attached packs')
    .option('--execution <id>', 'the last decision on an execution, by the modules that made it; compares every byte')
    .option('--attached', 'with --execution: by the attached packs as they are now')
    .action(
      action(async (options: EvalOptions) => {
        const { policyEval } = await import('./replay.ts')
        return async (context) => await policyEval(context, options)
      }),
    )
}

function proof(program: Command, leaf: Leaf, action: Action): void {
  const receipts = program.command('receipts').description('the signed account of everything')
  leaf(receipts, 'list', 'the newest receipts')
    .option('--limit <n>', 'how many', count, 20)
    .option('--jws', 'the whole log, one compact JWS a line, for an auditor')
    .option('--statements', "what approvers signed, one compact JWS a line, for an auditor's --with")
    .action(
      action(async (options: { limit: number; jws?: boolean; statements?: boolean }) => {
        const { receiptsExport, receiptsList, statementsExport } = await import('./receipts.ts')
        return (context) =>
          options.jws === true
            ? receiptsExport(context)
            : options.statements === true
              ? statementsExport(context)
              : receiptsList(context, options.limit)
      }),
    )
  leaf(receipts, 'show <id>', 'one receipt with what callers are not shown')
    .option('--jws', 'the compact JWS alone')
    .action(
      action(async (id: string, options: { jws?: boolean }) => {
        const { receiptsShow } = await import('./receipts.ts')
        return (context) => receiptsShow(context, id, options.jws === true)
      }),
    )
  leaf(
    program,
    'verify [file]',
    'verify a receipt, or with --log a whole log, offline; without FILE, the log of this configuration',
  )
    .option('--root <thumbprint>', 'the root thumbprint you got out of band')
    .option(
      '--jwks <file>',
      'the keys to trust: keys.jwt, what /.well-known/jwks.json serves, or without --root any JWKS',
    )
    .option('--log', 'the file is a log: one receipt a line, from the first')
    .option('--approver <x>', 'public key of an approver; may be repeated', collect, [])
    .option(
      '--with <file>',
      "what it refers to, one JWS a line: the decision of an outcome, the approvals of a decision, approvers' statements; may be repeated",
      collect,
      [],
    )
    .option(
      '--held <file>',
      'receipts kept elsewhere, one a line, that a log has to hold; may be repeated',
      collect,
      [],
    )
    .action(
      action(async (file: string | undefined, options: VerifyOptions) => {
        const { verify } = await import('./verify.ts')
        return async (context) => await verify(context, file, options)
      }),
    )
  const keys = leaf(program, 'keys', 'the keys receipts are signed with')
    .option('--fingerprint', 'the root thumbprint alone: what an auditor pins')
    .action(
      action(async (options: { fingerprint?: boolean }) => {
        const { keysShow } = await import('./keys.ts')
        return (context) => keysShow(context, options.fingerprint === true)
      }),
    )
  leaf(
    keys,
    'rotate',
    'have a new key sign receipts from now on; needs keys/root.pem, and a broker that does not run',
  ).action(action(async () => (await import('./keys.ts')).keysRotate))
}
