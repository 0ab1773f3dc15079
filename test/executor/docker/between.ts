import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, request as ask } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'

/** What stands between Writ and a real engine: an engine that hangs, fails, lies or goes away, at a place of one's choice. */
export interface Between {
  readonly host: string
  /** What is done with a request; `pass` unless told. */
  rule: (method: string, path: string) => 'pass' | 'hang' | 'fail' | 'garbage' | 'drop'
  /** Alters a body of JSON on its way to the engine. */
  ask: (path: string, body: unknown) => unknown
  /** Alters an answer of JSON on its way back; null where it is passed on as it comes. */
  answer: ((path: string, body: unknown) => unknown) | null
  /** Ends every connection and takes none until `mend`. */
  cut(): void
  mend(): void
  readonly requests: string[]
  close(): Promise<void>
}

/** Quoted by a failing engine, as a real one quotes command lines and paths. */
export const leak = 'exec: "/secret/path --token=hunter2-hunter2" failed'

export async function openBetween(host: string): Promise<Between> {
  const socketPath = host.slice('unix://'.length)
  const folder = mkdtempSync(join(tmpdir(), 'writ-between-'))
  const own = join(folder, 'engine.sock')
  const live = new Set<Duplex>()
  let whole = true
  const server = createServer((request, response) => void pass(request, response))
  server.on('connection', (socket: Socket) => {
    live.add(socket)
    socket.on('error', () => undefined)
    socket.once('close', () => live.delete(socket))
    if (!whole) socket.destroy()
  })

  function hold(request: IncomingMessage, stream: Duplex | ServerResponse): boolean {
    const path = pathOf(request)
    between.requests.push(`${request.method} ${path}`)
    switch (between.rule(request.method ?? '', path)) {
      case 'pass':
        return false
      case 'hang':
        return true
      case 'drop':
        request.socket.destroy()
        return true
      case 'garbage':
        stream.end('HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"a": [1}')
        return true
      case 'fail': {
        const text = JSON.stringify({ message: leak })
        if ('writeHead' in stream) stream.writeHead(500, { 'content-type': 'application/json' }).end(text)
        else stream.end(`HTTP/1.1 500 Oops\r\ncontent-length: ${text.length}\r\n\r\n${text}`)
        return true
      }
    }
  }

  async function pass(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (hold(request, response)) return
    const chunks: Buffer[] = []
    for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk)
    const given = Buffer.concat(chunks)
    const path = pathOf(request)
    const body = given.length === 0 ? given : Buffer.from(JSON.stringify(between.ask(path, JSON.parse(String(given)))))
    const headers = { ...request.headers, ...(given.length === 0 ? {} : { 'content-length': String(body.length) }) }
    const onward = ask({ socketPath, method: request.method, path: request.url, headers }, (got) => {
      if (between.answer === null) {
        response.writeHead(got.statusCode ?? 500, got.rawHeaders)
        got.pipe(response)
        return
      }
      const parts: Buffer[] = []
      got.on('data', (part: Buffer) => parts.push(part))
      got.on('end', () => {
        const text = Buffer.concat(parts)
        const json = (got.headers['content-type'] ?? '').includes('json') && text.length > 0
        const back = json ? Buffer.from(JSON.stringify(between.answer?.(path, JSON.parse(String(text))))) : text
        response.writeHead(got.statusCode ?? 500, { 'content-type': got.headers['content-type'] ?? 'text/plain' })
        response.end(back)
      })
    })
    onward.on('error', () => response.destroy())
    response.once('close', () => onward.destroy())
    onward.end(body)
  }

  server.on('upgrade', (request, stream, head) => {
    stream.on('error', () => undefined)
    if (hold(request, stream)) return
    const onward = connect(socketPath)
    live.add(onward)
    onward.on('error', () => undefined)
    onward.once('close', () => {
      live.delete(onward)
      // What is still under way arrives; where the line was cut, it does not.
      if (whole) stream.end()
      else stream.destroy()
    })
    stream.once('close', () => onward.destroy())
    const lines = request.rawHeaders.flatMap((name, at) =>
      at % 2 === 0 ? [`${name}: ${request.rawHeaders[at + 1]}`] : [],
    )
    // In one piece, as it came: the engine takes what it finds of the body when it has read the head for that, and what
    // comes later for standard input of the container.
    const text = `${request.method} ${request.url} HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n`
    onward.write(Buffer.concat([Buffer.from(text), head]))
    stream.pipe(onward).pipe(stream)
  })

  const between: Between = {
    host: `unix://${own}`,
    rule: () => 'pass',
    ask: (_path, body) => body,
    answer: null,
    requests: [],
    cut() {
      whole = false
      for (const stream of live) stream.destroy()
    },
    mend() {
      whole = true
    },
    async close() {
      this.cut()
      await new Promise((resolve) => server.close(resolve))
      rmSync(folder, { recursive: true, force: true })
    },
  }
  await new Promise<void>((resolve) => server.listen(own, resolve))
  return between
}

function pathOf(request: IncomingMessage): string {
  return (request.url ?? '').replace(/\?.*$/, '')
}
