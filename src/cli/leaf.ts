import { type Command, InvalidArgumentError } from 'commander'
import type { Context } from './context.ts'

type Use = (context: Context) => number | Promise<number>

/** What a command does once it was read: it is loaded when it is called, so that none waits for what another needs. */
export type Run = (command: Command, use: Use) => Promise<void>
/** Makes one command that does something, with `--json`. */
export type Leaf = (parent: Command, name: string, about: string) => Command
export type Action = (use: (...args: never[]) => Promise<Use>) => (...all: unknown[]) => Promise<void>

export function collect(value: string, before: readonly string[]): readonly string[] {
  return [...before, value]
}

export function count(text: string): number {
  const value = Number(text)
  if (text.trim() === '' || !Number.isSafeInteger(value) || value < 0)
    throw new InvalidArgumentError('has to be a whole number.')
  return value
}
