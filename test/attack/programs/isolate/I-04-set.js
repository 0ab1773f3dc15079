const set = new Set()
for (let at = 0; ; at++) set.add('a key of some length ' + at)
