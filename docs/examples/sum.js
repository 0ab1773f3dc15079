// Sums the second column of the first CSV file among the files of the task.
const path = writ.files().find((name) => name.endsWith('.csv'))
const rows = writ.readText(path).trim().split('\n').slice(1)
const total = rows.reduce((sum, row) => sum + Number(row.split(',')[1]), 0)
export default { rows: rows.length, total }
