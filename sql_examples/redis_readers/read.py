#!/usr/bin/env python3
"""Reads one row of a feature view straight from Redis, without Tidemark: docs/redis-layout.md in a page.

    read.py HOST:PORT VIEW_ID KEY…        a KEY is an integer, or text after "text:"

VIEW_ID is what `SELECT 'my_view'::regclass::oid` gives. Prints JSON; nothing, with status 1, where the key has no row.
The features are a list in the layout "packed", and in the layout "hash" texts by name, without those that are NULL.
"""
import json
import socket
import struct
import sys
import zlib


def encoded(key):
    """An entity key: one part after the other, each with its kind before it."""
    parts = b""
    for part in key:
        if part.startswith("text:"):
            text = part[5:].encode()
            parts += b"\x05" + struct.pack(">I", len(text)) + text
        else:
            parts += b"\x02" + struct.pack(">q", int(part))
    return parts


def named(key):
    """The name of an entity, in the layout "hash"."""
    escaped = lambda text: text.replace("%", "%25").replace("/", "%2F")
    return "/".join(escaped(part[5:]) if part.startswith("text:") else str(int(part)) for part in key)


class Redis:
    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.stream = socket.create_connection((host, int(port))).makefile("rwb")

    def ask(self, *words):
        words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        self.stream.write(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
        self.stream.flush()
        return self.answer()

    def answer(self):
        answer = self.stream.readline().rstrip()
        if answer[:1] == b"*":
            return [self.answer() for _ in range(int(answer[1:]))]
        if answer[:1] != b"$":
            raise RuntimeError(answer.decode())
        length = int(answer[1:])
        return None if length < 0 else self.stream.read(length + 2)[:length]


class Row:
    """The bytes of a row, in postcard's format."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, length):
        self.at += length
        return self.data[self.at - length : self.at]

    def unsigned(self):
        value, shift = 0, 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def signed(self):
        value = self.unsigned()
        return (value >> 1) ^ -(value & 1)

    def value(self):
        kind = self.unsigned()
        if kind == 0:
            return None
        if kind == 1:
            return self.take(1) == b"\x01"
        if kind in (2, 4):  # integers, dates, times; numerics without their point
            return self.signed()
        if kind == 3:
            return struct.unpack("<d", self.take(8))[0]
        if kind == 5:
            return self.take(self.unsigned()).decode()
        if kind == 6:
            return self.take(self.unsigned()).hex()
        if kind == 7:
            return {"months": self.signed(), "days": self.signed(), "nanoseconds": self.signed()}
        return [self.value() for _ in range(self.unsigned())]


def show_texts(parts):
    """Name, text, name, text, …, as HGETALL answers."""
    texts = dict(zip(parts[::2], parts[1::2]))
    if not texts:
        sys.exit(1)
    instants = {name: int(texts["@" + at]) if "@" + at in texts else None
                for name, at in [("instant", "since"), ("event", "event"), ("until", "until")]}
    features = {name: text for name, text in texts.items() if not name.startswith("@")}
    print(json.dumps({**instants, "values": features}))


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    redis, view, key = Redis(sys.argv[1]), sys.argv[2], encoded(sys.argv[3:])
    crc = zlib.crc32(key)
    mark = "tidemark:{%s.%d}" % (view, crc % 64)
    layout = redis.ask("HGET", mark, "layout")
    if layout is None:
        sys.exit("Redis does not know this view")
    version, buckets, _ = layout.decode().split(" ")
    if version == "2":
        return show_texts([part.decode() for part in redis.ask("HGETALL", mark + "/" + named(sys.argv[3:]))])
    if version != "1":
        sys.exit("a layout of another version: " + version)
    value = redis.ask("HGET", "%s:%d" % (mark, crc % int(buckets)), key)
    if value is None or len(value) == 10:
        sys.exit(1)
    row = Row(value[11:])
    if row.unsigned() != 1:
        sys.exit("a row of another format")
    instant = row.signed()
    event = instant - row.signed()
    until = instant + row.signed() if row.take(1) == b"\x01" else None
    values = [row.value() for _ in range(row.unsigned())]
    print(json.dumps({"instant": instant, "event": event, "until": until, "values": values}))


main()
