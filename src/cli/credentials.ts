import { join } from 'node:path'
import { openFileSource } from '../credential/file/file.ts'
import { Secret } from '../credential/secret.ts'
import { WritError } from '../error.ts'
import { loadCatalog } from '../plan/catalog.ts'
import { type Context, configOf, no, readAll, yes } from './context.ts'
import { show, table } from './print.ts'

function fileSource(context: Context): ReturnType<typeof openFileSource> {
  const config = configOf(context)
  return openFileSource({ dir: config.credentials, identityFile: join(config.keys, 'credentials.age') })
}

export async function credentialsList(context: Context): Promise<number> {
  const config = configOf(context)
  const catalog = loadCatalog(config.catalog, config.limits)
  const stored = new Set(await fileSource(context).list())
  const credentials = [...catalog.credentials.values()].map((credential) => ({
    name: credential.name,
    source: credential.source.kind,
    inject: credential.inject.kind,
    value:
      credential.source.kind === 'file'
        ? stored.has(credential.source.ref)
          ? 'set'
          : 'missing'
        : context.env[credential.source.ref] === undefined
          ? 'missing'
          : 'set',
  }))
  const named = new Set([...catalog.credentials.values()].map((credential) => credential.source.ref))
  const unused = [...stored].filter((name) => !named.has(name))
  show(context, { credentials, unused }, () =>
    [
      table(
        ['credential', 'source', 'inject', 'value'],
        credentials.map((c) => [c.name, c.source, c.inject, c.value]),
      ),
      ...unused.map((name) => `${name} is stored, and catalog.yaml names no credential for it`),
    ].join('\n'),
  )
  return yes
}

/** Values come from standard input only: an argument would stand in the process list and the shell's history. */
export async function credentialsSet(context: Context, name: string): Promise<number> {
  if (context.tty)
    context.note('Type the value, then Enter and Ctrl-D. It is shown as you type; pipe it in to avoid that.')
  const secret = Secret.ingest(name, await readAll(context.stdin, 70_000))
  await fileSource(context).set(name, secret)
  const named = isNamed(context, name)
  if (!named)
    context.note(
      `catalog.yaml names no credential with the source { file: ${name} }, so nothing uses it yet; "writ credentials list" shows what it names.`,
    )
  show(context, { name, set: true, named }, () => `Stored ${name}, encrypted.`)
  return yes
}

/** Whether a credential of the catalog takes its value from there. A catalog that cannot be read is told by what needs it. */
function isNamed(context: Context, name: string): boolean {
  const config = configOf(context)
  try {
    const { credentials } = loadCatalog(config.catalog, config.limits)
    return [...credentials.values()].some(({ source }) => source.kind === 'file' && source.ref === name)
  } catch (failure) {
    if (failure instanceof WritError) return true
    throw failure
  }
}

export async function credentialsRemove(context: Context, name: string): Promise<number> {
  const removed = await fileSource(context).remove(name)
  show(context, { name, removed }, () => (removed ? `Removed ${name}.` : `There is no stored value for ${name}.`))
  return removed ? yes : no
}
