package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

type spend struct {
	UserID   int64          `db:"user_id"`
	At       time.Time      `db:"at"`
	Clicks   int64          `db:"clicks"`
	Total    pgtype.Numeric `db:"total"`
	LastPage *string        `db:"last_page"`
}

func refused(what, state string, err error) {
	var of *pgconn.PgError
	if !errors.As(err, &of) {
		check(what, errors.New("nothing of the server's: "+text(err)))
	}
	expect(what, of.Code, state)
}

func text(err error) string {
	if err == nil {
		return "no error"
	}
	return err.Error()
}

// pgx in its five ways to run a statement: prepared and cached, described, by text and by the simple protocol.
func pgxScenario(url string) {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	pool, err := pgxpool.New(ctx, url+"&pool_max_conns=4")
	check("pool", err)
	pgxWrites(ctx, pool)
	for _, mode := range []string{"cache_statement", "cache_describe", "describe_exec", "exec", "simple_protocol"} {
		pool, err := pgxpool.New(ctx, url+"&pool_max_conns=2&default_query_exec_mode="+mode)
		check(mode, err)
		pgxReads(ctx, mode, pool)
		pool.Close()
	}
	pgxBlocks(ctx, pool)
	pool.Close()
}

func pgxWrites(ctx context.Context, pool *pgxpool.Pool) {
	word, page := "grüße 🦀\t\\", "a"
	one, huge := int64(1), int64(1)<<62
	values := []any{
		int64(1), true, int16(-7), int32(70000), float32(1.5), 0.1, "12345.678", word, []byte{0, 255},
		time.Date(2026, 2, 28, 0, 0, 0, 0, time.UTC), pgtype.Time{Microseconds: 3723000004, Valid: true}, at, at,
		pgtype.Interval{Days: 3, Microseconds: 7000000, Valid: true}, []*int64{&one, nil, &huge}, []string{"a,b", ""}, []float32{0.5, -2},
	}
	marks := "$1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17"
	tag, err := pool.Exec(ctx, "INSERT INTO everything VALUES ("+marks+")", values...)
	check("insert", err)
	expect("tag", tag.String(), "INSERT 0 1")
	_, err = pool.Exec(ctx, "INSERT INTO everything (id) VALUES ($1)", 2)
	check("insert of NULLs", err)
	_, err = pool.Exec(ctx, "INSERT INTO everything (id) VALUES (2)")
	refused("the same key", "23505", err)

	// CopyFrom asks for the columns' types and writes binary
	rows := [][]any{{int64(7), "9.50", &page, at}, {int64(8), nil, "b", at}, {int64(7), "0.50", nil, at.Add(time.Second)}}
	count, err := pool.CopyFrom(ctx, pgx.Identifier{"public", "clicks"}, []string{"user_id", "price", "page", "at"}, pgx.CopyFromRows(rows))
	check("CopyFrom", err)
	expect("CopyFrom", count, int64(3))
	count, err = pool.CopyFrom(ctx, pgx.Identifier{"labels"}, []string{"user_id", "at"}, pgx.CopyFromSlice(1000, func(n int) ([]any, error) {
		return []any{int64(n), at}, nil
	}))
	check("CopyFrom", err)
	expect("CopyFrom", count, int64(1000))
	connection, err := pool.Acquire(ctx)
	check("acquire", err)
	var out bytes.Buffer
	_, err = connection.Conn().PgConn().CopyTo(ctx, &out, "COPY (SELECT user_id, price FROM clicks ORDER BY at, user_id) TO STDOUT CSV")
	check("CopyTo", err)
	expect("CopyTo", out.String(), "7,9.50\n8,\n7,0.50\n")
	loaded, err := connection.Conn().LoadType(ctx, "_int8")
	check("LoadType", err)
	expect("LoadType", loaded.OID, uint32(1016))
	connection.Release()
}

func pgxReads(ctx context.Context, mode string, pool *pgxpool.Pool) {
	for range 2 {
		var word string
		var raw []byte
		var longs []*int64
		var words []string
		var vector []float32
		var twice float64
		var when time.Time
		var money pgtype.Numeric
		err := pool.QueryRow(ctx, "SELECT word, raw, longs, words, vector, twice, at, money FROM everything WHERE id = $1", int64(1)).
			Scan(&word, &raw, &longs, &words, &vector, &twice, &when, &money)
		check(mode, err)
		expect(mode, []any{word, raw, *longs[0], longs[1] == nil, *longs[2], words, vector, twice, when.UTC()},
			[]any{"grüße 🦀\t\\", []byte{0, 255}, int64(1), true, int64(1) << 62, []string{"a,b", ""}, []float32{0.5, -2}, 0.1, at})
		shown, err := money.Value()
		check(mode, err)
		expect(mode, shown, any("12345.678"))

		rows, err := pool.Query(ctx, "SELECT * FROM spend WHERE user_id = $1", int64(7))
		check(mode, err)
		found, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[spend])
		check(mode, err)
		total, err := found.Total.Value()
		check(mode, err)
		expect(mode, []any{found.UserID, found.At.UTC(), found.Clicks, total, found.LastPage == nil},
			[]any{int64(7), at.Add(time.Second), int64(2), any("10.00"), true})

		rows, err = pool.Query(ctx, "SELECT user_id FROM spend WHERE user_id = ANY($1) ORDER BY user_id", []int64{8, 7, 9})
		check(mode, err)
		keys, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		check(mode, err)
		expect(mode, keys, []int64{7, 8})
		err = pool.QueryRow(ctx, "SELECT clicks FROM spend WHERE user_id = $1", int64(9)).Scan(&found.Clicks)
		expect(mode, err, pgx.ErrNoRows)
		err = pool.QueryRow(ctx, "SELECT views FROM pages WHERE page = $1 AND user_id = $2", "a", int64(7)).Scan(&found.Clicks)
		check(mode, err)
		expect(mode, found.Clicks, int64(1))
		var empty *string
		check(mode, pool.QueryRow(ctx, "SELECT word FROM everything WHERE id = $1", int64(2)).Scan(&empty))
		expect(mode, empty == nil, true)
	}
	// One round trip for all of them
	batch := &pgx.Batch{}
	for n := range 10 {
		batch.Queue("SELECT clicks FROM spend WHERE user_id = $1", int64(7+n%2))
	}
	results := pool.SendBatch(ctx, batch)
	for n := range 10 {
		var clicks int64
		check(mode, results.QueryRow().Scan(&clicks))
		expect(mode, clicks, int64(2-n%2))
	}
	check(mode, results.Close())
	_, err := pool.Exec(ctx, "SELECT * FROM nothing")
	refused(mode, "42P01", err)
	_, err = pool.Exec(ctx, "SELECT 1 / $1::int", 0)
	refused(mode, "22012", err)
}

func pgxBlocks(ctx context.Context, pool *pgxpool.Pool) {
	err := pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) error {
		inner, err := tx.Begin(ctx) // a savepoint
		check("savepoint", err)
		_, err = inner.Exec(ctx, "SELECT 1/0")
		refused("within", "22012", err)
		check("back", inner.Rollback(ctx))
		var counted int64
		check("after", tx.QueryRow(ctx, "SELECT count(*) FROM labels").Scan(&counted))
		expect("labels", counted, int64(1000))
		_, err = tx.Exec(ctx, "DECLARE portions CURSOR FOR SELECT user_id FROM labels ORDER BY user_id")
		check("declare", err)
		rows, err := tx.Query(ctx, "FETCH 3 FROM portions")
		check("fetch", err)
		keys, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		check("fetch", err)
		expect("fetch", keys, []int64{0, 1, 2})
		return nil
	})
	check("block", err)
	err = pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO labels VALUES (1, NULL, NULL)")
		return err
	})
	refused("read only", "25006", err)

	// A context that ends cancels on the server
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	_, err = pool.Exec(short, "SELECT pg_sleep(60)")
	cancel()
	expect("timeout", err != nil && (errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "57014")), true)

	connection, err := pool.Acquire(ctx)
	check("acquire", err)
	_, err = connection.Exec(ctx, "LISTEN news")
	check("listen", err)
	_, err = pool.Exec(ctx, "SELECT pg_notify('news', 'hello')")
	check("notify", err)
	heard, err := connection.Conn().WaitForNotification(ctx)
	check("heard", err)
	expect("heard", []string{heard.Channel, heard.Payload}, []string{"news", "hello"})
	connection.Release()
}
