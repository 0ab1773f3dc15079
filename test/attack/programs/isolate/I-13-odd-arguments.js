let seen = 0
const trap = new Proxy(
  { toString: () => (seen++, 'http://127.0.0.1:3128/trap'), [Symbol.toPrimitive]: () => (seen++, 'http://127.0.0.1:3128/trap') },
  { getPrototypeOf: () => null },
)
const tries = {
  fetch: () => fetch(trap, { method: trap, headers: { [trap]: trap }, body: 'x' }),
  read: () => writ.readText({ toString: () => '../../../etc/passwd' }),
  absolute: () => writ.readText('/etc/passwd'),
  proc: () => writ.readText('/proc/self/environ'),
  write: () => writ.writeFile({ toString: () => '/etc/x' }, 'x'),
  climb: () => writ.writeFile('/out/../x', 'x'),
  nul: () => writ.writeFile('/out/a\0b', 'x'),
  timer: () => setTimeout('globalThis.bad = 1', 0),
  number: () => setTimeout(() => {}, { valueOf: () => Number.NaN }) && undefined,
  url: () => new URL({ toString: () => 'no url' }),
  random: () => crypto.getRandomValues(new Uint8Array(100_000)),
  digest: () => crypto.subtle.digest('MD5', new Uint8Array(1)),
  decode: () => new TextDecoder('utf-16'),
  lone: () => writ.writeFile('/out/\ud800', 'x'),
  exit: () => {
    throw Symbol('thrown')
  },
}
for (const [name, attempt] of Object.entries(tries)) {
  try {
    const value = await attempt()
    console.log(name, value === undefined ? 'undefined' : (value.status ?? typeof value))
  } catch (error) {
    console.log(name, error?.message ?? String(error))
  }
}
