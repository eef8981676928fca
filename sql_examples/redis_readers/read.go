// Reads one row of a feature view straight from Redis, without Tidemark: docs/redis-layout.md in Go, with nothing but its
// standard library.
//
//	go run read.go HOST:PORT VIEW_ID KEY…        a KEY is an integer, or text after "text:"
//
// Prints the JSON that read.py prints; nothing, with status 1, where the key has no row. The features are a list in the
// layout "packed", and in the layout "hash" texts by name, without those that are NULL.
package main

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"net"
	"os"
	"strconv"
	"strings"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}

// An entity key: one part after the other, each with its kind before it.
func encoded(parts []string) []byte {
	key := []byte{}
	for _, part := range parts {
		if text, is := strings.CutPrefix(part, "text:"); is {
			key = append(binary.BigEndian.AppendUint32(append(key, 5), uint32(len(text))), text...)
			continue
		}
		number, err := strconv.ParseInt(part, 10, 64)
		check(err)
		key = binary.BigEndian.AppendUint64(append(key, 2), uint64(number))
	}
	return key
}

// The name of an entity, in the layout "hash".
func named(parts []string) string {
	names := []string{}
	for _, part := range parts {
		if text, is := strings.CutPrefix(part, "text:"); is {
			part = strings.ReplaceAll(strings.ReplaceAll(text, "%", "%25"), "/", "%2F")
		}
		names = append(names, part)
	}
	return strings.Join(names, "/")
}

type redis struct {
	connection net.Conn
	answers    *bufio.Reader
}

// A bulk string, or nil.
func (r redis) ask(words ...string) []byte {
	r.send(words)
	return r.bulk(r.line())
}

// An array of bulk strings.
func (r redis) askAll(words ...string) []string {
	r.send(words)
	line := r.line()
	if !strings.HasPrefix(line, "*") {
		check(fmt.Errorf("%s", line))
	}
	length, err := strconv.Atoi(line[1:])
	check(err)
	answers := make([]string, length)
	for i := range answers {
		answers[i] = string(r.bulk(r.line()))
	}
	return answers
}

func (r redis) send(words []string) {
	request := fmt.Sprintf("*%d\r\n", len(words))
	for _, word := range words {
		request += fmt.Sprintf("$%d\r\n%s\r\n", len(word), word)
	}
	_, err := r.connection.Write([]byte(request))
	check(err)
}

func (r redis) line() string {
	line, err := r.answers.ReadString('\n')
	check(err)
	return strings.TrimRight(line, "\r\n")
}

func (r redis) bulk(line string) []byte {
	if !strings.HasPrefix(line, "$") {
		check(fmt.Errorf("%s", line))
	}
	length, err := strconv.Atoi(line[1:])
	check(err)
	if length < 0 {
		return nil
	}
	answer := make([]byte, length+2)
	_, err = io.ReadFull(r.answers, answer)
	check(err)
	return answer[:length]
}

// The bytes of a row that are still to be read, in postcard's format.
type row struct{ rest []byte }

func (r *row) take(length int) []byte {
	taken := r.rest[:length]
	r.rest = r.rest[length:]
	return taken
}

func (r *row) unsigned() uint64 {
	value, length := binary.Uvarint(r.rest)
	r.take(length)
	return value
}

func (r *row) signed() int64 {
	value := r.unsigned()
	return int64(value>>1) ^ -int64(value&1)
}

func (r *row) value() any {
	switch r.unsigned() {
	case 0:
		return nil
	case 1:
		return r.take(1)[0] == 1
	case 2, 4: // integers, dates, times; numerics without their point, here of up to 64 bits
		return r.signed()
	case 3:
		return math.Float64frombits(binary.LittleEndian.Uint64(r.take(8)))
	case 5:
		return string(r.take(int(r.unsigned())))
	case 6:
		return hex.EncodeToString(r.take(int(r.unsigned())))
	case 7:
		return map[string]int64{"months": r.signed(), "days": r.signed(), "nanoseconds": r.signed()}
	default:
		items := make([]any, r.unsigned())
		for i := range items {
			items[i] = r.value()
		}
		return items
	}
}

func main() {
	if len(os.Args) < 3 {
		check(fmt.Errorf("read.go HOST:PORT VIEW_ID KEY…"))
	}
	connection, err := net.Dial("tcp", os.Args[1])
	check(err)
	redis := redis{connection, bufio.NewReader(connection)}
	key := encoded(os.Args[3:])
	crc := crc32.ChecksumIEEE(key)
	mark := fmt.Sprintf("tidemark:{%s.%d}", os.Args[2], crc%64)
	var version, buckets uint32
	var owner string
	_, err = fmt.Sscan(string(redis.ask("HGET", mark, "layout")), &version, &buckets, &owner)
	if err == nil && version == 2 {
		showTexts(redis.askAll("HGETALL", mark+"/"+named(os.Args[3:])))
		return
	}
	if err != nil || version != 1 {
		check(fmt.Errorf("Redis does not know this view, or in another layout"))
	}
	value := redis.ask("HGET", fmt.Sprintf("%s:%d", mark, crc%buckets), string(key))
	if len(value) <= 10 {
		os.Exit(1)
	}
	row := row{value[11:]}
	if row.unsigned() != 1 {
		check(fmt.Errorf("a row of another format"))
	}
	instant := row.signed()
	event := instant - row.signed()
	var until *int64
	if row.take(1)[0] == 1 {
		end := instant + row.signed()
		until = &end
	}
	values := make([]any, row.unsigned())
	for i := range values {
		values[i] = row.value()
	}
	show(&instant, &event, until, values)
}

// Name, text, name, text, …, as HGETALL answers.
func showTexts(parts []string) {
	if len(parts) == 0 {
		os.Exit(1)
	}
	instants, features := map[string]*int64{}, map[string]string{}
	for i := 0; i+1 < len(parts); i += 2 {
		name, text := parts[i], parts[i+1]
		if !strings.HasPrefix(name, "@") {
			features[name] = text
		} else if name != "@version" {
			instant, err := strconv.ParseInt(text, 10, 64)
			check(err)
			instants[name] = &instant
		}
	}
	show(instants["@since"], instants["@event"], instants["@until"], features)
}

func show(instant, event, until *int64, values any) {
	printed, err := json.Marshal(struct {
		Instant *int64 `json:"instant"`
		Event   *int64 `json:"event"`
		Until   *int64 `json:"until"`
		Values  any    `json:"values"`
	}{instant, event, until, values})
	check(err)
	fmt.Println(string(printed))
}
