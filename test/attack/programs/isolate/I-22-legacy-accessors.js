const attempts = [
  () => ({}).__proto__ === Object.prototype,
  () => ({}).__lookupGetter__('__proto__')?.call(writ) === Object.prototype,
  () => Buffer.from('a'),
  () => writ.readText.caller,
  () => writ.readText.arguments,
  () => (function () { return arguments.callee.caller })(),
  () => globalThis.constructor.constructor('return this')() === globalThis,
  () => Object.getOwnPropertySymbols(globalThis).length,
]
for (const attempt of attempts) {
  try {
    console.log(String(attempt()))
  } catch (error) {
    console.log(error.name)
  }
}
