import { z } from 'zod'
import { fetchLimits, maxPayload } from './wire.ts'
import type { FromWorker } from './wire.ts'

const count = z.int().min(0).max(maxPayload)
const milliseconds = z.int().min(0)
const header = z.tuple([z.string().max(fetchLimits.name), z.string().max(fetchLimits.value)])

const frame = z.discriminatedUnion('t', [
  z.strictObject({ t: z.literal('ready') }),
  z.strictObject({ t: z.literal('started'), step: count }),
  z.strictObject({ t: z.literal('output'), step: count, stream: z.enum(['stdout', 'stderr']) }),
  z.strictObject({
    t: z.literal('fetch'),
    id: count,
    method: z.string().max(fetchLimits.method),
    url: z.string().max(fetchLimits.url),
    headers: z.array(header).max(fetchLimits.headers),
  }),
  z.strictObject({ t: z.literal('unfetch'), id: count }),
  z.strictObject({
    t: z.literal('exited'),
    step: count,
    exit: z.int().min(0).max(255),
    ms: milliseconds,
    reason: z.literal('guest_error').nullable(),
  }),
  z.strictObject({ t: z.literal('artifact'), path: z.string().min(1).max(1024) }),
  z.strictObject({ t: z.literal('end'), why: z.enum(['exited', 'memory', 'cpu', 'callback_quota']) }),
])

/** A worker's frame, or null: foreign code ran beside whoever wrote it. */
export function checkFromWorker(value: unknown): FromWorker | null {
  const parsed = frame.safeParse(value)
  return parsed.success ? parsed.data : null
}
