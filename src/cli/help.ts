import type { Command, Help, Option } from 'commander'

/** What a command ends with, said by each that has an answer of its own. */
const exits: ReadonlyMap<string, readonly string[]> = new Map([
  [
    'run',
    [
      '0  it succeeded; with --no-wait, it began or waits; with --dry-run, policy would allow it',
      '1  it ended in any other way: failed, denied, rejected, expired, cancelled, unknown …',
      '2  wrong usage or configuration, or something the operator has to put right',
    ],
  ],
])

/** Commands as one types them, by the name of the command they show. */
const examples: ReadonlyMap<string, readonly string[]> = new Map([
  [
    'run',
    [
      'writ run sandbox --intent run_script sum.js sales.csv',
      'writ run sandbox --intent run_script sum.js --input args=\'["--all"]\' --out results',
      'writ run production --intent run_script rotate.js --goal "Rotate the keys" --no-wait',
      'writ run python --intent install_and_test requirements.txt app.py test_app.py --json',
      'writ run sandbox --intent run_script sum.js --url https://writ.example --token-file token',
    ],
  ],
])

/** Sections that stand below a command's options, in `--help` and in docs/cli.md: a title and its lines. */
export function sectionsOf(name: string): readonly { readonly title: string; readonly lines: readonly string[] }[] {
  return [
    { title: 'Examples', lines: examples.get(name) ?? [] },
    { title: 'Exit status', lines: exits.get(name) ?? [] },
  ].filter(({ lines }) => lines.length > 0)
}

/** Gives each command its sections. */
export function addHelp(program: Command): void {
  for (const command of program.commands)
    for (const { title, lines } of sectionsOf(command.name()))
      command.addHelpText('after', `\n${title}:\n${lines.map((line) => `  ${line}`).join('\n')}`)
}

/** An option as `--help` shows it: an empty list is no default worth telling, and what has to be given says so. */
export function optionDescription(this: Help, option: Option): string {
  const { defaultValue, description, mandatory } = option as Option & { readonly defaultValue?: unknown }
  const shown = defaultValue === undefined || Array.isArray(defaultValue) || typeof defaultValue === 'boolean'
  return `${description}${mandatory ? ' (required)' : ''}${shown ? '' : ` (default: ${String(defaultValue)})`}`
}
