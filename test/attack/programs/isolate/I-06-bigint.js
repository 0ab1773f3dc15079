console.log('before')
let value = 3n
for (;;) value = value * value
