/**
 * What refusals and remedies say to an agent, said to a person at a command line. Texts of policies are people's own and
 * are left alone but for these very words.
 */
const words: readonly (readonly [RegExp, string])[] = [
  [
    /Call list_targets and (?:submit the task again with|use) a target_ref it shows\./g,
    '"writ targets list", where the broker runs, shows the targets there are.',
  ],
  [
    /Call list_targets with this target_ref and use one of its intents\./g,
    'Give one of the intents of this target with --intent.',
  ],
  [/Submit the task again with "inputs\.(\w+)": one of /g, 'Run it again with --input $1=PATH, one of '],
  [/Submit the task again with corrected inputs\./g, 'Run it again with other --input KEY=VALUE.'],
  [/Submit the task again/g, 'Run it again'],
  [/Submit the task for target/g, 'Run it on target'],
  [/Upload (?:it|the code) with upload_artifact( and name its path)?\./g, 'Name the file on the command line.'],
  [/Supply what "missing" names, then start again\./g, 'Supply what is missing and run it again.'],
  [
    /Check the id; get_status \{\} lists your latest executions\./g,
    'Check the id: "writ executions list", "writ approvals list" and "writ receipts list" show what there is.',
  ],
  [/Take a path that get_result lists under "files"\./g, 'Take a file that the result lists.'],
  [/Correct the field the message names and call again\./g, 'Correct what the message names and run it again.'],
  [/"execution_intent"/g, '--intent'],
  [/"target_ref"/g, 'the target'],
  [/"project_name"/g, '--project'],
  [/"goal"/g, '--goal'],
  [/"inputs\.(\w+)"/g, '--input $1'],
]

export function forPeople(text: string): string {
  return words.reduce((said, [pattern, instead]) => said.replaceAll(pattern, instead), text)
}
