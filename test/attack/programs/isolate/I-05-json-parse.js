const text = '[' + '{"a":[1,2,3]},'.repeat(20000) + '0]'
const kept = []
for (;;) kept.push(JSON.parse(text))
