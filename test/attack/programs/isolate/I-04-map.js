const map = new Map()
for (let at = 0; ; at++) map.set(at, { at, text: 'x'.repeat(64) + at })
