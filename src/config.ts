import { existsSync, readFileSync, statSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { z } from 'zod'
import type { Approver } from './approval/approval.ts'
import type { JsonObject } from './digest.ts'
import { systemCode, WritError } from './error.ts'
import { oauthProblem } from './http/identity/settings.ts'
import type { OAuthSettings } from './http/identity/settings.ts'
import { dockerSchema, dockerSettings } from './execution/engine.ts'
import type { DockerSettings } from './execution/engine.ts'
import { httpSchema, httpSettings } from './http/settings.ts'
import type { HttpSettings, Listen } from './http/settings.ts'
import { ceilings, limitNames, limitSettings } from './plan/limits.ts'
import type { LimitSettings } from './plan/limits.ts'
import { catalogSchema, limitsSchema } from './plan/schema.ts'
import type { Attachment } from './policy/policy.ts'
import { locateYaml } from './yaml.ts'

/** `writ.yaml`, checked; every path absolute. */
export interface Config {
  /** The file itself. */
  readonly path: string
  /** The folder relative paths are resolved against. */
  readonly folder: string
  readonly catalog: string
  readonly data: string
  readonly keys: string
  readonly credentials: string
  readonly policies: readonly Attachment[]
  /** `iss` of receipts, or null for the default made from the root key. */
  readonly issuer: string | null
  /** Who speaks over the local socket. */
  readonly local: { readonly subject: string; readonly roles: readonly string[]; readonly agent: string }
  readonly approvers: readonly Approver[]
  /** Authorisation servers whose access tokens are taken over HTTP; null where none is. */
  readonly oauth: OAuthSettings | null
  readonly limits: LimitSettings
  /** What each tenant may have of the disk and of one-time URLs. */
  readonly quotas: {
    readonly stored_mb: number
    readonly tickets: number
    readonly transfers: number
    readonly executions: number
  }
  /** How the container engine is reached. */
  readonly docker: DockerSettings
  /** What remote clients are served; null where the file has no such section and nobody asked for an address. */
  readonly http: HttpSettings | null
  /** Seconds without a client or work after which a broker without HTTP stops; 0 for never. */
  readonly idle_stop_s: number
}

export const configName = 'writ.yaml'

const subject = z
  .string()
  .min(1, 'must not be empty')
  .max(200, 'at most 200 characters')
  .regex(/^[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Zs}]+$/u, 'printable, without spaces')
const word = z
  .string()
  .regex(/^[a-z][a-z0-9_-]{0,62}$/, 'a-z, 0-9, "-" and "_", begins with a letter, at most 63 characters')
const roles = z.array(word).max(32)
const path = z
  .string()
  .min(1, 'must not be empty')
  .max(4096)
  .regex(/^[^\0]*$/, 'no NUL')

const configSchema = z.strictObject({
  catalog: path.optional().describe('File with targets, credentials and intents; catalog.yaml unless told'),
  data: path.optional().describe('Folder of the ledger, artifacts and sockets; .writ unless told'),
  keys: path.optional().describe('Folder of the signing keys; keys unless told'),
  credentials: path.optional().describe('Folder of the encrypted credential files; credentials unless told'),
  policies: z
    .array(
      z.strictObject({
        pack: z
          .string()
          .regex(/^[a-z][a-z0-9_]{0,62}$/, 'a-z, 0-9 and "_", begins with a letter, at most 63 characters'),
        layer: z.enum(['org', 'team']),
        kind: z.enum(['guard', 'grant']).describe('A guard only refuses and narrows; a grant pack lets things be'),
        path,
      }),
    )
    .max(64)
    .optional()
    .describe('Policy packs; without any nothing runs'),
  issuer: z
    .string()
    .refine(isIssuer, 'has to be an https URL without user, query or fragment')
    .optional()
    .describe('Issuer of receipts; made from the root key unless told'),
  local: z.strictObject({ subject, roles, agent: subject.optional() }).describe('Who speaks over the local socket'),
  approvers: z
    .array(
      z.strictObject({
        subject,
        roles: roles.min(1, 'name at least one role'),
        key: z.string().refine(isKey, 'has to be the "x" of an Ed25519 key: 43 base64url characters'),
      }),
    )
    .max(1000)
    .optional()
    .describe('People who may answer approvals; "writ approvals enroll" prints an entry'),
  limits: z
    .strictObject({ defaults: limitsSchema.optional(), maxima: limitsSchema.optional() })
    .optional()
    .describe('What a target gets that says nothing, and what none may pass'),
  quotas: z
    .strictObject({
      stored_mb: z.int().min(1).max(1_073_741_824).optional().describe('Megabytes kept; 10,240 unless told'),
      tickets: z.int().min(1).max(10_000).optional().describe('One-time URLs that live at once; 100 unless told'),
      transfers: z.int().min(1).max(1000).optional().describe('Uploads and downloads at once; 8 unless told'),
      executions: z.int().min(1).max(100_000).optional().describe('Executions that run or wait; 250 unless told'),
    })
    .optional()
    .describe('What each tenant may have'),
  docker: dockerSchema.optional().describe('The engine that targets with "executor: docker" run on'),
  http: httpSchema.optional().describe('Serve remote clients; docs/config.md says how'),
  idle_stop_s: z.int().min(0).max(604_800).optional(),
})

/**
 * Which configuration is meant: `--config F`, else `WRIT_CONFIG`, else the nearest `writ.yaml` from `cwd` upward, else
 * null. A folder that is named means the `writ.yaml` in it. A named file need not exist; loading it then says so.
 * @param where `env` is the environment, of which only `WRIT_CONFIG` is read
 */
export function findConfig(where: {
  readonly flag?: string | undefined
  readonly env: Readonly<Record<string, string | undefined>>
  readonly cwd: string
}): string | null {
  const named = where.flag ?? (where.env['WRIT_CONFIG'] === '' ? undefined : where.env['WRIT_CONFIG'])
  if (named !== undefined) {
    const full = resolve(where.cwd, named)
    return isFolder(full) ? join(full, configName) : full
  }
  for (let folder = resolve(where.cwd); ; folder = dirname(folder)) {
    const candidate = join(folder, configName)
    if (existsSync(candidate)) return candidate
    if (folder === dirname(folder)) return null
  }
}

/**
 * Reads and checks `writ.yaml`. Does not look at what its paths name. `listen` is the address of the command line, which
 * goes before the file's.
 * @throws WritError `no_config` where there is no such file, else `invalid_config` with `FILE:LINE:COLUMN: …`
 */
export function loadConfig(file: string, listen: Listen | null = null): Config {
  const full = resolve(file)
  const name = basename(full)
  const folder = dirname(full)
  const { value, fail } = locateYaml(readConfig(full, name), name, configSchema, 'invalid_config')
  const within = (given: string | undefined, standard: string): string => resolve(folder, given ?? standard)
  const policies = value.policies ?? []
  for (const [i, { pack }] of policies.entries())
    if (policies.findIndex((other) => other.pack === pack) !== i)
      throw fail(['policies', i, 'pack'], `the pack "${pack}" is attached twice`)
  const approvers = value.approvers ?? []
  for (const [i, approver] of approvers.entries()) {
    // One person fills one stage, so neither a name nor a key may stand for two.
    if (approvers.findIndex((other) => other.subject === approver.subject) !== i)
      throw fail(['approvers', i, 'subject'], `the approver "${approver.subject}" is named twice`)
    if (approvers.findIndex((other) => other.key === approver.key) !== i)
      throw fail(['approvers', i, 'key'], "this key is another approver's too")
  }
  for (const group of ['defaults', 'maxima'] as const)
    for (const limit of limitNames) {
      const given = value.limits?.[group]?.[limit]
      if (given !== undefined && given > ceilings[limit])
        throw fail(['limits', group, limit], `"${limit}" is more than Writ allows, ${ceilings[limit]}`)
    }
  const limits = limitSettings({ defaults: value.limits?.defaults ?? {}, maxima: value.limits?.maxima ?? {} })
  for (const limit of limitNames) {
    const given = value.limits?.defaults?.[limit]
    if (given !== undefined && given > limits.maxima[limit])
      throw fail(['limits', 'defaults', limit], `"${limit}" is more than its maximum ${limits.maxima[limit]}`)
  }
  const oauth = value.http?.oauth ?? null
  const problem = oauth === null ? null : oauthProblem(oauth, value.local.subject)
  if (problem !== null) throw fail(['http', 'oauth', ...problem.path], problem.message)
  const folders = {
    data: within(value.data, '.writ'),
    keys: within(value.keys, 'keys'),
    credentials: within(value.credentials, 'credentials'),
  }
  for (const [i, one] of (['data', 'keys', 'credentials'] as const).entries())
    if (Object.values(folders).indexOf(folders[one]) !== i)
      throw fail([one], `"${one}" names the same folder as another setting`)
  return {
    path: full,
    folder,
    catalog: within(value.catalog, 'catalog.yaml'),
    ...folders,
    policies: policies.map((policy) => ({ ...policy, path: resolve(folder, policy.path) })),
    issuer: value.issuer ?? null,
    local: { subject: value.local.subject, roles: value.local.roles, agent: value.local.agent ?? 'local-agent' },
    approvers,
    oauth: oauth === null ? null : withPaths(oauth, folder),
    limits,
    quotas: {
      stored_mb: value.quotas?.stored_mb ?? 10_240,
      tickets: value.quotas?.tickets ?? 100,
      transfers: value.quotas?.transfers ?? 8,
      executions: value.quotas?.executions ?? 250,
    },
    docker: dockerSettings(value.docker ?? {}, (given) => resolve(folder, given)),
    http:
      value.http === undefined && listen === null
        ? null
        : httpSettings(value.http ?? {}, listen, {
            resolve: (given) => resolve(folder, given),
            fail: (key, message) =>
              key === 'listen' && listen !== null
                ? new WritError('usage', `--listen: ${message}`, {
                    remedy: 'Say so in the section "http" of writ.yaml, or name an address of loopback.',
                  })
                : fail(['http', key], `http.${key}: ${message}`),
          }),
    idle_stop_s: value.idle_stop_s ?? 600,
  }
}

function withPaths(oauth: OAuthSettings, folder: string): OAuthSettings {
  return {
    ...oauth,
    issuers: oauth.issuers.map((one) => (one.ca === undefined ? one : { ...one, ca: resolve(folder, one.ca) })),
  }
}

/** JSON Schemas (2020-12) for editors, by file name under docs/schema. */
export function schemas(): ReadonlyMap<string, JsonObject> {
  return new Map([
    ['writ.json', z.toJSONSchema(configSchema, { io: 'input' }) as JsonObject],
    ['catalog.json', z.toJSONSchema(catalogSchema, { io: 'input' }) as JsonObject],
  ])
}

function readConfig(full: string, name: string): string {
  let bytes: Buffer
  try {
    if (!statSync(full).isFile()) throw new WritError('invalid_config', `${name}:1:1: not a regular file`)
    bytes = readFileSync(full)
  } catch (error) {
    if (error instanceof WritError) throw error
    const code = systemCode(error)
    if (code === 'ENOENT' || code === 'ENOTDIR') throw new WritError('no_config', `there is no configuration "${full}"`)
    throw new WritError('invalid_config', `${name}:1:1: the file cannot be read (${code ?? 'unknown'})`)
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw new WritError('invalid_config', `${name}:1:1: the file is not UTF-8`)
  }
}

function isFolder(full: string): boolean {
  try {
    return statSync(full, { throwIfNoEntry: false })?.isDirectory() === true
  } catch (error) {
    // What may not be looked at is named as a file, and reading it says why it cannot be read.
    if (systemCode(error) !== null) return false
    throw error
  }
}

function isIssuer(text: string): boolean {
  if (text.length > 255 || !/^https:\/\/[\u0021-\u007e]+$/.test(text) || /[?#\\]/.test(text) || !URL.canParse(text))
    return false
  const url = new URL(text)
  return url.username === '' && url.password === ''
}

function isKey(text: string): boolean {
  const bytes = Buffer.from(text, 'base64url')
  return bytes.length === 32 && bytes.toString('base64url') === text
}
