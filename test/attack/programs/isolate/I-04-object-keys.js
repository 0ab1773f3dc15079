const object = {}
for (let at = 0; ; at++) object['a key of some length ' + at] = at
