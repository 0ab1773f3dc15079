import { ProjectError } from './project.ts'

const boundary = '(<isolated-vm boundary>)'
const hints: readonly (readonly [RegExp, string])[] = [
  [
    /\b(?:require|module|exports) is not defined/,
    'Modules are ES modules here: import { readText } from "./file.js", or from "writ".',
  ],
  [/\bprocess is not defined/, 'There is no process here: use writ.env, writ.args, writ.stdin and writ.exit(code).'],
  [/\bBuffer is not defined/, 'There is no Buffer here: use Uint8Array, TextEncoder, atob and btoa.'],
  [/^Not supported/, 'import() is refused here: import the files of the project statically.'],
]

/** What a step prints before it fails: the guest's own words and frames, nothing of the worker's. */
export function describeFailure(error: unknown): string {
  if (error instanceof ProjectError) return error.message
  if (!(error instanceof Error)) return `Uncaught ${typeof error === 'string' ? error.slice(0, 16_384) : typeof error}`
  const { name } = error
  const message = error.message.slice(0, 16_384)
  const stack = error.stack ?? ''
  // Frames of the worker follow the boundary; a stack without one is not shown at all.
  const cut = stack.indexOf(boundary)
  const own = cut < 0 ? `${name}: ${message}` : stack.slice(0, cut).slice(0, 16_384)
  const lines = own.split('\n').filter((line) => !/^\s*at\s*$|^\s+at .*writ:/.test(line))
  const hint = hints.find(([pattern]) => pattern.test(message))?.[1]
  return [`Uncaught ${lines.join('\n').trimEnd()}`, ...(hint === undefined ? [] : [hint])].join('\n')
}
