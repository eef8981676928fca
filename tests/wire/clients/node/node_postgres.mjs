// node-postgres: pools, named statements, binary results, cursors, streams, COPY both ways, errors, cancel by time.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import pg from 'pg'
import copy from 'pg-copy-streams'
import Cursor from 'pg-cursor'
import QueryStream from 'pg-query-stream'

const where = { host: '127.0.0.1', port: Number(process.argv[2]), user: 'tidemark', database: 'tidemark' }
const at = new Date('2026-03-02T10:00:00.123Z')
const refused = (code, promise) => assert.rejects(promise, (error) => (assert.equal(error.code, code), true))

const pool = new pg.Pool({ ...where, max: 3 })
const client = await pool.connect()

// Every type, there and back
const types = await client.query(
  `INSERT INTO everything VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17) RETURNING id, word`,
  [1, true, -7, 70000, 1.5, 0.1, '12345.678', 'grüße 🦀\t\\', Buffer.from([0, 255]), '2026-02-28', '01:02:03.000004',
    '2026-03-02 10:00:00.123', at, '3 days 00:00:07', [1, null, '4611686018427387904'], ['a,b', null, ''], [0.5, -2]])
assert.deepEqual([types.command, types.rowCount, types.rows], ['INSERT', 1, [{ id: '1', word: 'grüße 🦀\t\\' }]])
for (let n = 0; n < 3; n++) {
  // The second and third time by the name of the statement
  const { rows: [row] } = await client.query({ name: 'everything', text: 'SELECT * FROM everything WHERE id = $1', values: [1] })
  assert.deepEqual({ ...row, day: null, naive: null, gap: { ...row.gap } }, {
    id: '1', flag: true, small: -7, whole: 70000, single: 1.5, twice: 0.1, money: '12345.678', word: 'grüße 🦀\t\\',
    raw: Buffer.from([0, 255]), day: null, clock: '01:02:03.000004', naive: null, at, gap: { days: 3, seconds: 7 },
    longs: ['1', null, '4611686018427387904'], words: ['a,b', null, ''], vector: [0.5, -2]
  })
  assert.deepEqual(row.day, new Date(2026, 1, 28))
}
// What a client has prepared SQL may call and forget
assert.equal((await client.query('EXECUTE everything (1)')).rows[0].id, '1')
await client.query('DEALLOCATE everything')
await refused('26000', client.query('EXECUTE everything (1)'))
await client.query('INSERT INTO everything (id) VALUES ($1)', [2])
const empty = (await client.query('SELECT * FROM everything WHERE id = 2')).rows[0]
assert.deepEqual(Object.values(empty).filter((value) => value !== null), ['2'])
const fields = (await client.query('SELECT id, money, longs, at FROM everything')).fields
assert.deepEqual(fields.map((field) => [field.name, field.dataTypeID]), [['id', 20], ['money', 1700], ['longs', 1016], ['at', 1184]])
const json = await client.query(`SELECT $1::jsonb->>'a' AS a`, [{ a: 'x' }])
assert.deepEqual(json.rows, [{ a: 'x' }])

// COPY both ways
const lines = `7\t9.50\ta\t${at.toISOString()}\n8\t\\N\tb\t${at.toISOString()}\n7\t0.50\tc\t2026-03-02 10:00:01+00\n`
await pipeline(Readable.from([lines.slice(0, 11), lines.slice(11)]), client.query(copy.from('COPY clicks FROM STDIN')))
let out = ''
for await (const chunk of client.query(copy.to('COPY (SELECT user_id, price FROM clicks ORDER BY at, user_id) TO STDOUT CSV'))) out += chunk
assert.equal(out, '7,9.50\n8,\n7,0.50\n')

// Lookups
const spend = 'SELECT user_id, clicks, total, last_page FROM spend WHERE user_id = '
assert.deepEqual((await client.query(spend + '$1', [7])).rows, [{ user_id: '7', clicks: '2', total: '10.00', last_page: 'c' }])
assert.deepEqual((await client.query(spend + 'ANY($1) ORDER BY 1', [[8, 7, 9]])).rows.map((row) => row.total), ['10.00', null])
assert.deepEqual((await client.query(spend + '$1', [9])).rows, [])
assert.deepEqual((await client.query({ text: 'SELECT views FROM pages WHERE page = $1 AND user_id = $2', values: ['a', 7], rowMode: 'array' })).rows, [['1']])
assert.deepEqual((await client.query({ text: 'SELECT clicks::int, last_page FROM spend WHERE user_id = $1', values: [7], binary: true })).rows,
  [{ clicks: 2, last_page: 'c' }])

// Cursors and streams
await client.query('INSERT INTO labels SELECT n, NULL, NULL FROM generate_series(0, 999) AS g (n)')
const cursor = client.query(new Cursor('SELECT user_id FROM labels WHERE user_id >= $1 ORDER BY user_id', [100]))
assert.deepEqual((await cursor.read(2)).map((row) => row.user_id), ['100', '101'])
assert.equal((await cursor.read(500)).length, 500)
assert.equal((await cursor.read(500)).length, 398)
assert.equal((await cursor.read(500)).length, 0)
await cursor.close()
let rows = 0
for await (const row of client.query(new QueryStream('SELECT user_id FROM labels', [], { batchSize: 64 }))) rows += row.user_id !== null
assert.equal(rows, 1000)

// Errors, blocks, several statements
await refused('42P01', client.query('SELECT * FROM nothing'))
await refused('22P02', client.query('SELECT $1::int', ['x']))
await refused('23505', client.query('INSERT INTO everything (id) VALUES (2)'))
await client.query('BEGIN')
await refused('22012', client.query('SELECT 1/0'))
await refused('25P02', client.query('SELECT 1'))
await client.query('ROLLBACK')
assert.deepEqual((await client.query('SELECT 1::int AS a; SELECT 2::int AS b')).map((result) => result.rows), [[{ a: 1 }], [{ b: 2 }]])

await client.query('LISTEN news')
const [heard] = await Promise.all([once(client, 'notification'), client.query(`NOTIFY news, 'hello'`)])
assert.deepEqual([heard[0].channel, heard[0].payload], ['news', 'hello'])
const notices = []
client.on('notice', (notice) => notices.push(notice.code))
await client.query('DROP TABLE IF EXISTS nothing')
assert.deepEqual(notices, ['00000'])
client.release(true)

const found = await Promise.all(Array.from({ length: 30 }, (_, n) => pool.query('SELECT clicks FROM spend WHERE user_id = $1', [7 + n % 3])))
assert.deepEqual(found.map((one) => one.rows[0]?.clicks), Array.from({ length: 10 }, () => ['2', '1', undefined]).flat())
await pool.end()

const hurried = new pg.Client({ ...where, statement_timeout: 200 })
await hurried.connect()
await refused('57014', hurried.query('SELECT pg_sleep(60)'))
await hurried.end()
console.log('ok')
