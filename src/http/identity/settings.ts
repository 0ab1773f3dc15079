import { z } from 'zod'
import { toolNames } from '../../request/call.ts'

/** What `http.oauth` of `writ.yaml` may say (docs/config.md). Defaults are filled in; paths are still as written. */

export const algorithms = ['EdDSA', 'Ed25519', 'ES256', 'PS256', 'RS256'] as const
export type Algorithm = (typeof algorithms)[number]

const word = z
  .string()
  .regex(/^[a-z][a-z0-9_-]{0,62}$/, 'a-z, 0-9, "-" and "_", begins with a letter, at most 63 characters')
const url = z
  .string()
  .max(512)
  .refine(isHttps, 'has to be an https URL without user, query or fragment, in printable ASCII')
const pointer = z
  .string()
  .max(256)
  .regex(/^(\/([^~/]|~[01])*)+$/, 'has to be a JSON pointer such as "/groups"')
const claimText = z.string().min(1).max(256)
const scope = z
  .string()
  .max(64)
  .regex(
    /^[\x21\x23-\x5b\x5d-\x7e]+$/,
    'has to be one scope in printable ASCII, without spaces, quotes and backslashes',
  )

const issuerSchema = z.strictObject({
  name: word.describe('Short name; subjects and agents of this issuer are called NAME:…'),
  issuer: url.describe('The exact "iss" of its tokens'),
  jwks_uri: url.optional().describe('Where its keys are; found by discovery (RFC 8414, OpenID Connect) unless told'),
  audience: claimText.optional().describe('The "aud" of its tokens for this Writ; the URL of /mcp unless told'),
  algorithms: z
    .array(z.enum(algorithms))
    .min(1)
    .default([...algorithms]),
  typ: z
    .enum(['at+jwt', 'jwt'])
    .default('at+jwt')
    .describe('"jwt" also takes access tokens that do not say what they are; for issuers without RFC 9068'),
  ca: z.string().min(1).max(4096).optional().describe('File with the PEM certificates its server is checked against'),
  claims: z.strictObject({
    tenant: z
      .union([
        z.strictObject({ value: word }),
        z.strictObject({ pointer, map: z.record(claimText, word).describe('Value of the claim → tenant') }),
      ])
      .describe('Whose things its callers see; a value that is not in the map is refused'),
    subject: pointer.default('/sub'),
    agent: z
      .union([z.strictObject({ value: claimText }), z.strictObject({ pointer })])
      .default({ pointer: '/client_id' }),
    roles: z
      .array(
        z.union([
          z.strictObject({ value: z.array(word).min(1).max(32) }),
          z.strictObject({ pointer, map: z.record(claimText, word).describe('Value in the claim → role') }),
        ]),
      )
      .max(16)
      .default([])
      .describe('What is not in a map gives no role'),
  }),
})

export const oauthSchema = z
  .strictObject({
    issuers: z.array(issuerSchema).min(1).max(16),
    scopes: z.array(scope).max(16).default([]).describe('A token has to hold all of these'),
    tool_scopes: z
      .partialRecord(z.enum(toolNames), z.array(scope).min(1).max(16))
      .default({})
      .describe('What a token has to hold besides for a call of the tool; a client is told and may ask for it'),
    roles_valid_s: z
      .int()
      .min(60)
      .max(2_592_000)
      .default(86_400)
      .describe('How long roles seen in a token count for what runs later, after an approval for example'),
  })
  .describe('Access tokens of authorisation servers; Writ is a resource server and never issues them')

export type OAuthSettings = z.output<typeof oauthSchema>
export type IssuerSettings = OAuthSettings['issuers'][number]

/** What is wrong with the settings beyond the schema, and where; null where nothing is. */
export function oauthProblem(
  { issuers }: OAuthSettings,
  localSubject: string,
): { readonly path: readonly (string | number)[]; readonly message: string } | null {
  for (const [i, { name, issuer }] of issuers.entries()) {
    // Two names of one issuer would make two people of one; two issuers of one name one person of two.
    if (issuers.findIndex((other) => other.name === name) !== i)
      return { path: ['issuers', i, 'name'], message: `the issuer "${name}" is named twice` }
    if (issuers.findIndex((other) => other.issuer === issuer) !== i)
      return { path: ['issuers', i, 'issuer'], message: 'this issuer is given twice' }
    if (localSubject.startsWith(`${name}:`))
      return { path: ['issuers', i, 'name'], message: 'the local subject begins with the name of this issuer' }
  }
  return null
}

function isHttps(text: string): boolean {
  if (!/^https:\/\/[\u0021-\u007e]+$/.test(text) || /[?#\\]/.test(text) || !URL.canParse(text)) return false
  const { username, password } = new URL(text)
  return username === '' && password === ''
}
