const kept = []
for (;;) kept.push(new Intl.DateTimeFormat('en', { timeZone: 'Asia/Tokyo' }), new Intl.NumberFormat('de').format(kept.length))
