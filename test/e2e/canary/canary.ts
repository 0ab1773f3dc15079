import { randomBytes } from 'node:crypto'

/** 30 printable characters, with marks that the usual encodings treat each in their own way. */
export function newCanary(): string {
  return `${randomBytes(9).toString('base64')}"/<+${randomBytes(9).toString('base64url')}&~`
}

/**
 * What a catalog says of a target that may reach an echo by several lanes: `LANE_URL` of each, and `LANE_TOKEN`, which
 * holds the place of the credential `lane-token`.
 */
export function echoing(lanes: readonly string[], port: number): string {
  const services = lanes.map(
    (lane) =>
      `      ${lane}: { url: "http://127.0.0.1:${String(port)}", about: Echoes, credential: ${lane}-token, addresses: ["127.0.0.1/32"] }\n`,
  )
  const environment = lanes.map((lane) => {
    const name = lane.toUpperCase()
    return `      ${name}_URL: { service: ${lane} }\n      ${name}_TOKEN: { placeholder: ${lane}-token }\n`
  })
  return `    services:\n${services.join('')}    environment:\n${environment.join('')}`
}

const inject = { header: 'header: X-Vault-Token', bearer: 'bearer: true', basic: 'basic: { username: "robot" }' }
export type Lane = keyof typeof inject

/** The credentials of these lanes, each injected in its way and from a file. */
export function credentialsOf(lanes: readonly Lane[]): string {
  return lanes
    .map((lane) => `  ${lane}-token:\n    source: { file: ${lane}-token }\n    inject: { ${inject[lane]} }\n`)
    .join('')
}
