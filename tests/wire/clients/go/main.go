// Scenarios of Go's clients against a Tidemark server: `clients pgx PORT`, `clients pq PORT`.
package main

import (
	"fmt"
	"os"
	"reflect"
	"time"
)

var at = time.Date(2026, 3, 2, 10, 0, 0, 123456000, time.UTC)

// check ends the program with what went wrong and where.
func check(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}

func expect(what string, found, expected any) {
	if !reflect.DeepEqual(found, expected) {
		check(what, fmt.Errorf("found %#v, expected %#v", found, expected))
	}
}

func main() {
	scenarios := map[string]func(string){"pgx": pgxScenario, "pq": pqScenario}
	scenarios[os.Args[1]](fmt.Sprintf("postgres://tidemark@127.0.0.1:%s/tidemark?sslmode=disable", os.Args[2]))
	fmt.Println("ok")
}
