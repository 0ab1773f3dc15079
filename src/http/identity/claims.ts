import type { Json, JsonObject } from '../../digest.ts'
import type { Caller, Shown } from '../../request/caller.ts'
import { object } from './keys.ts'
import type { IssuerSettings } from './settings.ts'

/** More values in one claim than anyone needs roles for. */
const maxValues = 1000
const maxRoles = 64
const printable = /^[^\p{C}\p{Z}]+$/u

/**
 * The caller a verified token stands for, by the configuration alone; null where it maps to no tenant or names nobody.
 * Subject and agent carry the issuer's name, so that no issuer can name another's people, nor those of tokens or the
 * socket, whose ids hold no such prefix.
 */
export function callerOf(claims: JsonObject, issuer: IssuerSettings, nowMs: number, shown: Shown): Caller | null {
  const map = issuer.claims
  const tenant = 'value' in map.tenant ? map.tenant.value : mapped(map.tenant.map, at(claims, map.tenant.pointer))
  const subject = name(at(claims, map.subject), 255)
  const agent = 'value' in map.agent ? map.agent.value : name(at(claims, map.agent.pointer), 1024)
  if (tenant === null || subject === null || agent === null) return null
  const roles = new Set<string>()
  for (const rule of map.roles) {
    if ('value' in rule) for (const role of rule.value) roles.add(role)
    else
      for (const value of values(at(claims, rule.pointer))) {
        const role = mapped(rule.map, value)
        if (role !== null) roles.add(role)
      }
  }
  if (roles.size > maxRoles) return null
  const { auth_time, iat } = claims
  const since = typeof auth_time === 'number' ? auth_time : typeof iat === 'number' ? iat : 0
  return {
    tenant,
    // A client that acts for itself is its own subject (RFC 9068 §2.2): nobody stands behind it.
    subject: { type: claims['sub'] === claims['client_id'] ? 'service' : 'user', id: `${issuer.name}:${subject}` },
    roles: [...roles].sort(),
    agent: { id: `${issuer.name}:${agent}`, asserted: { client: '', version: '' } },
    auth: { method: 'oauth', atMs: Math.min(Math.max(0, Math.floor(since * 1000)), nowMs), shown },
  }
}

/** The value an RFC 6901 pointer names, own members only; undefined where there is none. */
function at(claims: JsonObject, pointer: string): Json | undefined {
  let value: Json | undefined = claims
  for (const part of pointer.slice(1).split('/')) {
    const fields: JsonObject | null = object(value)
    const key = part.replaceAll('~1', '/').replaceAll('~0', '~')
    value = fields !== null && Object.hasOwn(fields, key) ? fields[key] : undefined
  }
  return value
}

function name(value: Json | undefined, longest: number): string | null {
  return typeof value === 'string' && value.length <= longest && printable.test(value) ? value : null
}

/** A list of texts, or one text of words, as `scope` is. */
function values(value: Json | undefined): readonly Json[] {
  if (typeof value === 'string') return value.split(' ').slice(0, maxValues)
  return Array.isArray(value) ? value.slice(0, maxValues) : []
}

function mapped(map: Readonly<Record<string, string>>, value: Json | undefined): string | null {
  return typeof value === 'string' && Object.hasOwn(map, value) ? (map[value] ?? null) : null
}
