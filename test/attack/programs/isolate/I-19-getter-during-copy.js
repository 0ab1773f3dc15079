const buffer = new ArrayBuffer(1 << 16)
const view = new Uint8Array(buffer)
const trap = {
  get length() {
    buffer.transfer?.()
    return 1 << 20
  },
  get byteLength() {
    return 1 << 20
  },
  buffer,
}
for (const attempt of [
  () => writ.writeFile('/out/a', trap),
  () => writ.writeFile('/out/a', new Proxy(view, {})),
  () => structuredClone(trap),
  () => crypto.getRandomValues(trap),
  () => new TextDecoder().decode(trap),
]) {
  try {
    console.log(typeof attempt())
  } catch (error) {
    console.log(error.name)
  }
}
class Liar extends Uint8Array {
  get length() {
    return 1 << 28
  }
  subarray() {
    return [1, 2, 3]
  }
}
writ.writeFile('/out/liar', new Liar(4))
export default { get x() { return 1 }, ['__proto__']: 1, nested: { constructor: { prototype: 1 } } }
