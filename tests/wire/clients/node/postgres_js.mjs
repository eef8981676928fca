// postgres.js: types by description, dynamic lists, cursors, blocks and savepoints, COPY, listen, cancel.

import assert from 'node:assert/strict'
import { pipeline } from 'node:stream/promises'
import { Readable } from 'node:stream'
import postgres from 'postgres'

const sql = postgres({ host: '127.0.0.1', port: Number(process.argv[2]), user: 'tidemark', database: 'tidemark', max: 3, onnotice: () => {} })
const at = new Date('2026-03-02T10:00:00.123Z')
const refused = (code, promise) => assert.rejects(promise, (error) => (assert.equal(error.code, code), true))

// Every type, there and back
const row = {
  id: 1, flag: true, small: -7, whole: 70000, single: 1.5, twice: 0.1, money: '12345.678', word: 'grüße 🦀\t\\',
  raw: Buffer.from([0, 255]), day: new Date('2026-02-28'), clock: '01:02:03.000004', naive: at, at, gap: '3 days 00:00:07',
  // Not NULL: what postgres.js makes of one within an array is 'NULL', PostgreSQL's too
  longs: ['1', '4611686018427387904'], words: ['a,b', ''], vector: [0.5, -2]
}
const [made] = await sql`INSERT INTO everything ${sql(row)} RETURNING id`
assert.equal(made.id, '1')
const [back] = await sql`SELECT * FROM everything WHERE id = ${1}`
assert.deepEqual({ ...back, naive: null, day: null }, { ...row, id: '1', naive: null, day: null })
assert.equal(back.day.toISOString().slice(0, 10), '2026-02-28')
const [empty] = await sql`INSERT INTO everything ${sql({ id: 2, word: null })} RETURNING *`
assert.deepEqual(Object.values(empty).filter((value) => value !== null), ['2'])

await sql`INSERT INTO clicks ${sql([
  { user_id: 7, price: '9.50', page: 'a', at }, { user_id: 8, price: null, page: 'b', at }, { user_id: 7, price: '0.50', page: null, at }
])}`
// Lookups
const [spend] = await sql`SELECT * FROM spend WHERE user_id = ${7}`
assert.deepEqual({ ...spend }, { user_id: '7', at, clicks: '2', total: '10.00', last_page: null })
assert.deepEqual([...await sql`SELECT user_id, total FROM spend WHERE user_id IN ${sql([7, 8, 9])} ORDER BY user_id`].map((one) => one.total), ['10.00', null])
assert.equal((await sql`SELECT total FROM spend WHERE user_id = ANY(${[7, 8, 9]})`).count, 2)
assert.deepEqual([...await sql`SELECT total FROM spend WHERE user_id = ${9}`], [])
assert.deepEqual([...await sql`SELECT ${sql(['clicks', 'last_page'])} FROM ${sql('spend')} WHERE user_id = ${8}`.values()], [['1', 'b']])
assert.deepEqual([...await sql`SELECT ${sql.array([1, 2])}::int[] AS a`], [{ a: [1, 2] }])

// What a statement says of itself
const described = await sql`SELECT total, at FROM spend WHERE user_id = ${7}`.describe()
assert.deepEqual([described.types, described.columns.map((column) => [column.name, column.type])], [[20], [['total', 1700], ['at', 1184]]])

// Cursors
await sql`INSERT INTO labels SELECT n, NULL, NULL FROM generate_series(0, 999) AS g (n)`
const sizes = []
await sql`SELECT user_id FROM labels ORDER BY user_id`.cursor(300, (rows) => { sizes.push(rows.length) })
assert.deepEqual(sizes, [300, 300, 300, 100])
let first
for await (const [one] of sql`SELECT user_id FROM labels ORDER BY user_id`.cursor()) { first = one.user_id; break }
assert.equal(first, '0')
let counted = 0
await sql`SELECT user_id FROM labels`.forEach(() => { counted++ })
assert.equal(counted, 1000)

// Blocks, savepoints, errors
await sql.begin(async (block) => {
  assert.equal((await block`SELECT 1::int AS a`)[0].a, 1)
  await refused('22012', block.savepoint((inner) => inner`SELECT 1/0`))
  assert.equal((await block`SELECT 2::int AS a`)[0].a, 2)
})
await refused('25006', sql.begin('read only', (block) => block`INSERT INTO labels VALUES (1, NULL, NULL)`))
await refused('42P01', sql`SELECT * FROM nothing`)
await refused('23505', sql`INSERT INTO everything ${sql({ id: 2 })}`)
assert.deepEqual((await sql.unsafe('SELECT 1::int AS a; SELECT 2::int AS b')).map((result) => ({ ...result[0] })), [{ a: 1 }, { b: 2 }])
assert.equal((await sql`SELECT 1::int AS a`.simple())[0].a, 1)
const slow = sql`SELECT pg_sleep(60)`
setTimeout(() => slow.cancel(), 300)
await refused('57014', slow)

// COPY both ways
await pipeline(Readable.from(['2000\t\\N\tt\n']), await sql`COPY labels FROM STDIN`.writable())
let out = ''
for await (const chunk of await sql`COPY (SELECT user_id, bought FROM labels WHERE user_id >= 999 ORDER BY 1) TO STDOUT`.readable()) out += chunk
assert.equal(out, '999\t\\N\n2000\tt\n')

const heard = new Promise((resolve) => { sql.listen('news', resolve, () => sql.notify('news', 'hello')) })
assert.equal(await heard, 'hello')

const reserved = await sql.reserve()
assert.equal((await reserved`SELECT current_database() AS name`)[0].name, 'tidemark')
reserved.release()
const many = await Promise.all(Array.from({ length: 30 }, (_, n) => sql`SELECT clicks FROM spend WHERE user_id = ${7 + n % 3}`))
assert.deepEqual(many.map((rows) => rows[0]?.clicks), Array.from({ length: 10 }, () => ['2', '1', undefined]).flat())
await sql.end()
console.log('ok')
