/** Above this many bytes a value is looked for in its main forms only, so that the needles stay in proportion. */
const wideLimit = 4096
/** A shorter needle would redact ordinary text. */
export const shortestNeedle = 8

/**
 * Every form of a value that the redactor looks for, the value itself first, without duplicates.
 * Base64 forms are cut to the characters that the value alone determines, so they are
 * found inside a longer encoded text at any of the three offsets: `Basic base64(user:value)` is one case of that.
 */
export function encodingsOf(value: Uint8Array): readonly Buffer[] {
  const forms = new Map<string, Buffer>()
  const add = (bytes: Buffer): void => {
    if (bytes.length >= shortestNeedle) forms.set(bytes.toString('latin1'), bytes)
  }
  const addText = (text: string): void => add(Buffer.from(text, 'utf8'))

  const raw = Buffer.from(value)
  const parts = [raw, ...pieces(raw)]
  for (const part of parts) {
    add(part)
    const text = utf8(part)
    if (text !== null) for (const form of textForms(text, part.length <= wideLimit)) addText(form)
    for (const form of base64Forms(part)) addText(form)
    const hex = part.toString('hex')
    addText(hex)
    addText(hex.toUpperCase())
    if (part.length > wideLimit) continue
    for (const digits of [hex, hex.toUpperCase()]) {
      const pairs = digits.match(/../g) ?? []
      addText(pairs.join(':'))
      addText(pairs.join(' '))
      addText(pairs.map((pair) => `\\x${pair}`).join(''))
      addText(pairs.map((pair) => `%${pair}`).join(''))
    }
    add(Buffer.from(part).reverse())
    if (text !== null) add(Buffer.from(text, 'utf16le'))
  }
  return [...forms.values()]
}

/**
 * The forms in which a token comes back from the service that issued it, or from the code it was kept from: plain, in
 * JSON, in a URL, in base64 at any offset, in hex. Few, as it is the service that says how many tokens there are.
 */
export function mainEncodingsOf(value: Uint8Array): readonly Buffer[] {
  const raw = Buffer.from(value)
  const text = raw.toString('latin1')
  const json = JSON.stringify(text).slice(1, -1)
  const component = encodeURIComponent(text)
  const strict = strictly(component)
  const hex = raw.toString('hex')
  const forms = [
    text,
    json,
    json.replaceAll('/', '\\/'),
    component,
    strict,
    lowerPercent(strict),
    ...base64Forms(raw),
    hex,
    hex.toUpperCase(),
  ]
  return [...new Set(forms)].filter((form) => form.length >= shortestNeedle).map((form) => Buffer.from(form, 'latin1'))
}

/** The value without the white space around it, and each of its lines. */
function pieces(raw: Buffer): readonly Buffer[] {
  const text = raw.toString('latin1')
  const found = new Set([text.trim(), ...text.split(/[\r\n]+/), ...text.split(/[\r\n]+/).map((line) => line.trim())])
  found.delete(text)
  return [...found].map((piece) => Buffer.from(piece, 'latin1')).filter((piece) => piece.length >= shortestNeedle)
}

function utf8(bytes: Buffer): string | null {
  const text = bytes.toString('utf8')
  return Buffer.from(text, 'utf8').equals(bytes) ? text : null
}

const htmlNames: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' }

function textForms(text: string, wide: boolean): readonly string[] {
  const json = JSON.stringify(text).slice(1, -1)
  const slashed = json.replaceAll('/', '\\/')
  const forms = [json, slashed, JSON.stringify(json).slice(1, -1), encodeURI(text), ...percentForms(text)]
  for (const apostrophe of ['&#39;', '&#x27;', '&apos;', "'"])
    forms.push(text.replaceAll(/[&<>"]/g, (c) => htmlNames[c] ?? c).replaceAll("'", apostrophe))
  // A shell word: `'\\''` and `'"'"'`.
  forms.push(text.replaceAll("'", `'\\''`), text.replaceAll("'", `'"'"'`))
  if (!wide) return forms
  for (const once of percentForms(text)) forms.push(...percentForms(once))
  // Go writes `<`, `>` and `&` of JSON as escapes, Python everything that is not ASCII.
  for (const one of [json, slashed])
    forms.push(
      one.replaceAll(/[<>&]/g, unicodeEscape),
      one.replaceAll(/[\u0080-\uffff]/g, unicodeEscape),
      one.replaceAll(/[<>&\u0080-\uffff]/g, unicodeEscape),
    )
  const full = text.replaceAll(/[^]/g, unicodeEscape)
  const points = Array.from(text, (c) => c.codePointAt(0) ?? 0)
  forms.push(
    full,
    full.replaceAll(/[a-f]/g, (digit) => digit.toUpperCase()),
    points.map((point) => `&#${point};`).join(''),
    points.map((point) => `&#x${point.toString(16)};`).join(''),
    Array.from(text).reverse().join(''),
  )
  return forms
}

function unicodeEscape(unit: string): string {
  return `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`
}

/** What languages make of a text in a URL: they differ in a few marks, in `/`, in `+` for a space, and in the case of hex digits. */
function percentForms(text: string): readonly string[] {
  const component = encodeURIComponent(text)
  const strict = strictly(component)
  const form = new URLSearchParams({ '': text }).toString().slice(1)
  const upper = [component, strict, form, strict.replaceAll('%2F', '/'), strict.replaceAll('%20', '+')]
  return [...upper, ...upper.map(lowerPercent)]
}

function strictly(component: string): string {
  return component.replaceAll(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`)
}

function lowerPercent(text: string): string {
  return text.replaceAll(/%[0-9A-F]{2}/g, (escape) => escape.toLowerCase())
}

function base64Forms(bytes: Buffer): readonly string[] {
  const forms: string[] = []
  for (const offset of [0, 1, 2]) {
    const text = Buffer.concat([Buffer.alloc(offset), bytes]).toString('base64')
    const cut = text.slice(Math.ceil((8 * offset) / 6), Math.floor((8 * (offset + bytes.length)) / 6))
    const percent = cut.replaceAll('+', '%2B').replaceAll('/', '%2F')
    forms.push(cut, cut.replaceAll('+', '-').replaceAll('/', '_'), percent, lowerPercent(percent))
  }
  return forms
}
