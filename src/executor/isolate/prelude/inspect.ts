/**
 * Runs inside the isolate, as text: it may use nothing but what stands between its braces. Makes `console`'s way of
 * showing values, near to Node's: nested, bounded in depth, width and length, safe for cycles, proxies and getters.
 */
export function makeInspect(): (values: readonly unknown[]) => string {
  'use strict'
  const maxDepth = 4
  const maxItems = 100
  const maxText = 65_536
  const tagOf = (value: object): string => Object.prototype.toString.call(value).slice(8, -1)
  const ownKeys = Reflect.ownKeys
  const describe = Object.getOwnPropertyDescriptor
  const isArray = Array.isArray
  const identifier = /^[A-Za-z_$][\w$]*$/

  function quote(text: string): string {
    return `'${text.replace(/[\\']/g, '\\$&').replace(/\n/g, '\\n').replace(/\r/g, '\\r').replace(/\t/g, '\\t')}'`
  }

  function primitive(value: unknown, nested: boolean): string | null {
    if (typeof value === 'string') return nested ? quote(value) : value
    if (typeof value === 'bigint') return `${value}n`
    if (typeof value === 'number') return Object.is(value, -0) ? '-0' : String(value)
    if (typeof value === 'object') return value === null ? 'null' : null
    return typeof value === 'function'
      ? null
      : (value as symbol | boolean | undefined) === undefined
        ? 'undefined'
        : (value as symbol | boolean).toString()
  }

  function errorText(error: Error): string {
    const stack = typeof error.stack === 'string' ? error.stack : ''
    const lines = stack.split('\n').filter((line) => !/^\s+at .*writ:/.test(line))
    return lines.join('\n') || `${error.name}: ${error.message}`
  }

  function nameOf(value: object): string {
    try {
      const proto: unknown = Object.getPrototypeOf(value)
      if (proto === null) return '[Object: null prototype]'
      const maker: unknown = (proto as { constructor?: unknown }).constructor
      return typeof maker === 'function' && typeof maker.name === 'string' ? maker.name : 'Object'
    } catch {
      return 'Object'
    }
  }

  function join(open: string, parts: readonly string[], close: string, indent: string): string {
    if (parts.length === 0) return `${open}${close}`
    const flat = `${open} ${parts.join(', ')} ${close}`
    if (flat.length + indent.length <= 76 && !flat.includes('\n')) return flat
    return `${open}\n${parts.map((part) => `${indent}  ${part}`).join(',\n')}\n${indent}${close}`
  }

  function property(
    value: object,
    key: string | symbol,
    depth: number,
    seen: readonly object[],
    indent: string,
  ): string {
    const label = typeof key === 'symbol' ? `[${String(key)}]` : identifier.test(key) ? key : quote(key)
    const found = describe(value, key)
    if (found === undefined) return `${label}: undefined`
    if (found.get !== undefined || found.set !== undefined) return `${label}: [Getter]`
    return `${label}: ${show(found.value, depth + 1, seen, `${indent}  `)}`
  }

  function show(value: unknown, depth: number, seen: readonly object[], indent: string): string {
    const simple = primitive(value, depth > 0)
    if (simple !== null) return simple
    try {
      return showObject(value as object, depth, seen, indent)
    } catch {
      return '[unreadable object]'
    }
  }

  function showObject(value: object, depth: number, seen: readonly object[], indent: string): string {
    if (typeof value === 'function') {
      const name = value.name
      const kind = /^class\b/.test(Function.prototype.toString.call(value)) ? 'class' : 'Function'
      return `[${kind}${name === '' ? ' (anonymous)' : `${kind === 'class' ? ' ' : ': '}${name}`}]`
    }
    if (seen.includes(value)) return '[Circular]'
    const tag = tagOf(value)
    if (tag === 'Date') return Number.isNaN((value as Date).getTime()) ? 'Invalid Date' : (value as Date).toISOString()
    if (tag === 'RegExp') return RegExp.prototype.toString.call(value)
    if (tag === 'Promise') return 'Promise { }'
    const inside = [...seen, value]
    if (value instanceof Error) {
      const own = ownKeys(value).filter((key) => key !== 'stack' && key !== 'message')
      const text = errorText(value)
      if (own.length === 0 || depth >= maxDepth) return text
      return `${text} ${join(
        '{',
        own.slice(0, maxItems).map((key) => property(value, key, depth, inside, indent)),
        '}',
        indent,
      )}`
    }
    const name = nameOf(value)
    if (depth >= maxDepth) return isArray(value) ? '[Array]' : `[${name}]`
    const shown: string[] = []
    let left = 0
    let [open, close] = ['{', '}']
    let keys = ownKeys(value).filter((key) => describe(value, key)?.enumerable === true)
    if (isArray(value) || ArrayBuffer.isView(value)) {
      const list = value as unknown as ArrayLike<unknown>
      ;[open, close] = ['[', ']']
      const length = list.length ?? 0
      if (!isArray(value)) open = `${name}(${length}) [`
      for (let at = 0; at < length && at < maxItems; at++)
        shown.push(at in list ? show(list[at], depth + 1, inside, `${indent}  `) : '<empty>')
      left = Math.max(0, length - maxItems)
      keys = keys.filter((key) => typeof key === 'symbol' || !/^\d+$/.test(key))
    } else if (value instanceof Map) {
      open = `Map(${value.size}) {`
      for (const [key, item] of value) {
        if (shown.length >= maxItems) break
        shown.push(`${show(key, depth + 1, inside, `${indent}  `)} => ${show(item, depth + 1, inside, `${indent}  `)}`)
      }
      left = Math.max(0, value.size - maxItems)
    } else if (value instanceof Set) {
      open = `Set(${value.size}) {`
      for (const item of value) {
        if (shown.length >= maxItems) break
        shown.push(show(item, depth + 1, inside, `${indent}  `))
      }
      left = Math.max(0, value.size - maxItems)
    } else if (value instanceof ArrayBuffer) return `ArrayBuffer { byteLength: ${value.byteLength} }`
    else if (name !== 'Object') open = `${name} {`
    for (const key of keys.slice(0, maxItems)) shown.push(property(value, key, depth, inside, indent))
    left += Math.max(0, keys.length - maxItems)
    if (left > 0) shown.push(`... ${left} more`)
    return join(open, shown, close, indent)
  }

  function format(values: readonly unknown[]): string {
    const [first, ...rest] = values
    if (typeof first !== 'string' || rest.length === 0 || !first.includes('%'))
      return values.map((value) => show(value, 0, [], '')).join(' ')
    let at = 0
    const text = first.replace(/%[sdifjoOc%]/g, (mark) => {
      if (mark === '%%') return '%'
      if (at >= rest.length) return mark
      const value = rest[at++]
      if (mark === '%s') return typeof value === 'string' ? value : show(value, 1, [], '')
      if (mark === '%d') return String(Number(value))
      if (mark === '%i') return String(Number.parseInt(String(value), 10))
      if (mark === '%f') return String(Number.parseFloat(String(value)))
      if (mark === '%c') return ''
      return show(value, 1, [], '')
    })
    return [text, ...rest.slice(at).map((value) => show(value, 0, [], ''))].join(' ')
  }

  return (values) => {
    const text = format(values)
    return text.length > maxText * 16 ? `${text.slice(0, maxText * 16)}… (cut)` : text
  }
}
