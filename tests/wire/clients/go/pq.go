package main

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/lib/pq"
)

// lib/pq through database/sql, with parameters in text and in binary.
func pqScenario(url string) {
	for first, parameters := range []string{"", "&binary_parameters=yes"} {
		db, err := sql.Open("postgres", url+parameters)
		check("open", err)
		db.SetMaxOpenConns(3)
		pqReads(db, int64(first)*100)
		check("close", db.Close())
	}
}

func pqRefused(what, state string, err error) {
	var of *pq.Error
	if !errors.As(err, &of) {
		check(what, errors.New("nothing of the server's: "+text(err)))
	}
	expect(what, string(of.Code), state)
}

func pqReads(db *sql.DB, first int64) {
	_, err := db.Exec("INSERT INTO everything (id, word, raw, at, longs, words, twice, money) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
		first+1, "it's \\", []byte{0, 255}, at, pq.Array([]int64{1, 1 << 62}), pq.Array([]sql.NullString{{String: "a,b", Valid: true}, {}}), 0.1, "1.500")
	check("insert", err)
	var word, money string
	var raw []byte
	var when time.Time
	var longs []int64
	var words []sql.NullString
	var twice float64
	var flag sql.NullBool
	err = db.QueryRow("SELECT word, raw, at, longs, words, twice, money, flag FROM everything WHERE id = $1", first+1).
		Scan(&word, &raw, &when, pq.Array(&longs), pq.Array(&words), &twice, &money, &flag)
	check("select", err)
	expect("row", []any{word, raw, when.UTC(), longs, words[0].String, words[1].Valid, twice, money, flag.Valid},
		[]any{"it's \\", []byte{0, 255}, at, []int64{1, 1 << 62}, "a,b", false, 0.1, "1.500", false})

	// COPY FROM STDIN within a block
	tx, err := db.Begin()
	check("begin", err)
	copying, err := tx.Prepare(pq.CopyIn("clicks", "user_id", "price", "page", "at"))
	check("copy", err)
	for n, price := range []any{"9.50", nil, "0.50"} {
		_, err = copying.Exec(first+7+int64(n%2), price, "a", at.Add(time.Duration(n)*time.Second))
		check("copy", err)
	}
	_, err = copying.Exec()
	check("copy's end", err)
	check("copy's end", copying.Close())
	check("commit", tx.Commit())

	lookup, err := db.Prepare("SELECT clicks, total FROM spend WHERE user_id = $1")
	check("prepare", err)
	for range 3 {
		var clicks int64
		var total string
		check("lookup", lookup.QueryRow(first+7).Scan(&clicks, &total))
		expect("lookup", []any{clicks, total}, []any{int64(2), "10.00"})
		expect("no such key", lookup.QueryRow(first+9).Scan(&clicks, &total), sql.ErrNoRows)
	}
	rows, err := db.Query("SELECT user_id FROM spend WHERE user_id = ANY($1) ORDER BY 1", pq.Array([]int64{first + 8, first + 7, first + 9}))
	check("any", err)
	var keys []int64
	for rows.Next() {
		var key int64
		check("any", rows.Scan(&key))
		keys = append(keys, key)
	}
	check("any", rows.Err())
	expect("any", keys, []int64{first + 7, first + 8})
	types, err := db.Query("SELECT at, total FROM spend")
	check("types", err)
	columns, err := types.ColumnTypes()
	check("types", err)
	expect("types", []string{columns[0].DatabaseTypeName(), columns[1].DatabaseTypeName()}, []string{"TIMESTAMPTZ", "NUMERIC"})
	check("types", types.Close())

	_, err = db.Exec("SELECT * FROM nothing")
	pqRefused("nothing", "42P01", err)
	_, err = db.Exec("INSERT INTO everything (id) VALUES ($1)", first+1)
	pqRefused("the same key", "23505", err)
	tx, err = db.BeginTx(context.Background(), &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	check("read only", err)
	_, err = tx.Exec("INSERT INTO labels VALUES (1, NULL, NULL)")
	pqRefused("read only", "25006", err)
	_, err = tx.Exec("SELECT 1")
	pqRefused("failed block", "25P02", err)
	check("rollback", tx.Rollback())
	short, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	_, err = db.ExecContext(short, "SELECT pg_sleep(60)")
	cancel()
	expect("timeout", err != nil, true)
	var one int
	check("after", db.QueryRow("SELECT 1").Scan(&one))
}
