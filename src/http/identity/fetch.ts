import { request } from 'node:https'
import type { Json } from '../../digest.ts'
import { parseIJson } from '../../json.ts'

const maxBytes = 256 * 1024
const timeoutMs = 5_000

/** Reads a JSON document of an authorisation server. Rejects with why it could not; the text is for the operator only. */
export type FetchJson = (url: string) => Promise<Json>

/**
 * Fetches over HTTPS from where the configuration points: no redirect followed, no compressed answer, no more than
 * 256 KiB, done within 5 s however slowly the bytes come.
 * @param ca PEM certificates to check the server against, instead of those Node brings
 */
export function httpsJson(ca: string | null): FetchJson {
  return async (url) =>
    await new Promise<Json>((resolve, reject) => {
      if (new URL(url).protocol !== 'https:') return reject(new Error('not an https URL'))
      const asked = request(
        url,
        {
          method: 'GET',
          agent: false,
          signal: AbortSignal.timeout(timeoutMs),
          headers: { accept: 'application/json', 'accept-encoding': 'identity', connection: 'close' },
          ...(ca === null ? {} : { ca }),
        },
        (answer) => {
          const encoding = answer.headers['content-encoding'] ?? 'identity'
          if (answer.statusCode !== 200 || encoding !== 'identity') {
            answer.destroy()
            return reject(new Error(`answered ${String(answer.statusCode)} in encoding ${encoding}`))
          }
          const pieces: Buffer[] = []
          let size = 0
          answer.on('data', (piece: Buffer) => {
            size += piece.length
            if (size > maxBytes) answer.destroy(new Error(`more than ${maxBytes} bytes`))
            else pieces.push(piece)
          })
          answer.on('error', reject)
          // A connection that breaks in the middle ends in "aborted", never in "end".
          answer.on('aborted', () => reject(new Error('the answer broke off')))
          answer.on('end', () => {
            try {
              resolve(parseIJson(Buffer.concat(pieces), { maxBytes, maxDepth: 16 }))
            } catch (malformed) {
              reject(malformed instanceof Error ? malformed : new Error('not JSON'))
            }
          })
        },
      )
      asked.on('error', reject)
      asked.end()
    })
}
