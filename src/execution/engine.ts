import { z } from 'zod'

/** How the container engine is reached, for the run host. Paths are absolute; no secret stands here. */
export interface DockerSettings {
  /** `unix:///path`, `tcp://host:port` or `ssh://user@host[:port]`. */
  readonly host: string
  /** PEM files for `tcp`; a TCP engine without them is refused. */
  readonly tls: { readonly ca: string; readonly cert: string; readonly key: string } | null
  /** Containers kept waiting for each create body that was asked for lately; 0 for none. */
  readonly warm: number
  /** Refuse engines and runtimes with known holes instead of warning of them. */
  readonly strict: boolean
}

const path = z.string().min(1, 'must not be empty').max(4096)

/** The section `docker` of writ.yaml. */
export const dockerSchema = z.strictObject({
  host: z
    .string()
    .max(1024)
    .regex(
      /^(?:unix:\/\/\/[^\s?#]+|tcp:\/\/[A-Za-z0-9.\-[\]:]+:[0-9]{1,5}|ssh:\/\/[A-Za-z0-9._-]+@[A-Za-z0-9.\-[\]:]+)$/,
      'has to be unix:///PATH, tcp://HOST:PORT or ssh://USER@HOST',
    )
    .optional()
    .describe('The engine; unix:///var/run/docker.sock unless told'),
  tls: z
    .strictObject({ ca: path, cert: path, key: path })
    .optional()
    .describe('PEM files for a tcp engine, which is refused without them'),
  warm: z.int().min(0).max(16).optional().describe('Containers kept waiting for each kind of run; 1 unless told'),
  strict: z.boolean().optional().describe('Refuse engines with known holes instead of warning; false unless told'),
})

/** The section with what it leaves out filled in; `resolve` makes a path absolute. */
export function dockerSettings(
  given: z.output<typeof dockerSchema>,
  resolve: (path: string) => string,
): DockerSettings {
  const { tls } = given
  return {
    host: given.host ?? 'unix:///var/run/docker.sock',
    tls: tls === undefined ? null : { ca: resolve(tls.ca), cert: resolve(tls.cert), key: resolve(tls.key) },
    warm: given.warm ?? 1,
    strict: given.strict ?? false,
  }
}
