"""A client of the extended protocol, as small as can be: psql sends only simple queries, and what a benchmark measures
through Parse, Bind and Execute has to be checked through them too."""

import socket
import struct


class Connection:
    def __init__(self, port, user, database):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.input = self.socket.makefile("rb")
        packet = struct.pack("!i", 196608) + f"user\0{user}\0database\0{database}\0\0".encode()
        self.socket.sendall(struct.pack("!i", len(packet) + 4) + packet)
        self.until_ready()

    def send(self, *messages):
        self.socket.sendall(b"".join(kind + struct.pack("!i", len(body) + 4) + body for kind, body in messages))

    def until_ready(self):
        rows = []
        while True:
            kind = self.input.read(1)
            (length,) = struct.unpack("!i", self.input.read(4))
            body = self.input.read(length - 4)
            if kind == b"E":
                raise SystemExit(f"the server refused: {body!r}")
            if kind == b"D":
                rows.append(data_row(body))
            if kind == b"Z":
                return rows

    def prepare(self, name, sql):
        self.send((b"P", name.encode() + b"\0" + sql.encode() + b"\0" + struct.pack("!h", 0)), (b"S", b""))
        self.until_ready()

    def execute(self, name, parameters):
        bind = b"\0" + name.encode() + b"\0" + struct.pack("!hh", 0, len(parameters))
        for parameter in parameters:
            text = str(parameter).encode()
            bind += struct.pack("!i", len(text)) + text
        bind += struct.pack("!h", 0)
        self.send((b"B", bind), (b"E", b"\0" + struct.pack("!i", 0)), (b"S", b""))
        return self.until_ready()

    def close(self):
        self.send((b"X", b""))
        self.socket.close()


def data_row(body):
    (count,), at, values = struct.unpack_from("!h", body), 2, []
    for _ in range(count):
        (length,) = struct.unpack_from("!i", body, at)
        at += 4
        if length < 0:
            values.append(None)
        else:
            values.append(body[at : at + length].decode())
            at += length
    return tuple(values)
