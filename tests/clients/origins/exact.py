"""Reads requests exactly as RFC 9112 writes them and nothing else: what our proxy sends is in one form alone.

`exact.py LOG`. Writes a line of JSON for each whole request, or `{"odd": why}` for what is in another form.
"""

import hashlib
import json
import os
import re
import socketserver
import sys


class Odd(Exception):
    """Bytes that no exact sender writes."""


def line(stream):
    got = stream.readline(1 << 17)
    if got.endswith(b"\r\n"):
        return got[:-2]
    raise Odd(f"a line without CR LF: {got[-20:]!r}") if got.endswith(b"\n") else EOFError


def whole(stream, length):
    got = stream.read(length)
    if len(got) != length:
        raise EOFError
    return got


def body_of(stream, fields):
    lengths = [value for name, value in fields if name == "content-length"]
    codings = [value for name, value in fields if name == "transfer-encoding"]
    if codings:
        if codings != ["chunked"] or lengths:
            raise Odd(f"framing {codings} {lengths}")
        body = b""
        while True:
            size = line(stream).decode("latin-1")
            if not re.fullmatch("[0-9A-Fa-f]{1,16}", size):
                raise Odd(f"chunk size {size!r}")
            if int(size, 16) == 0:
                break
            body += whole(stream, int(size, 16))
            if whole(stream, 2) != b"\r\n":
                raise Odd("a chunk without its end")
        while line(stream):
            pass
        return body
    if not lengths:
        return b""
    if len(lengths) > 1 or not re.fullmatch("[0-9]{1,19}", lengths[0]):
        raise Odd(f"lengths {lengths}")
    return whole(stream, int(lengths[0]))


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        try:
            while True:
                self.one()
        except Odd as odd:
            note({"odd": str(odd)})
        except (EOFError, ConnectionError):
            pass

    def one(self):
        first = line(self.rfile)
        words = first.decode("latin-1").split(" ")
        if len(words) != 3 or words[2] not in ("HTTP/1.1", "HTTP/1.0"):
            raise Odd(f"request line {first!r}")
        fields = []
        while field := line(self.rfile):
            name, _, value = field.decode("latin-1").partition(":")
            if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or re.search(r"[\x00-\x08\x0a-\x1f\x7f]", value):
                raise Odd(f"field {field!r}")
            fields.append((name.lower(), value.strip(" \t")))
        if dict(fields).get("expect") == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = body_of(self.rfile, fields)
        note([words[0], words[1], hashlib.sha256(body).hexdigest()])
        self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n" + (b"" if words[0] == "HEAD" else b"ok"))


def note(what):
    with open(sys.argv[1], "a") as log:
        log.write(json.dumps(what, separators=(",", ":")) + "\n")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


host, port = os.environ["MESH_APP_ADDR"].split(":")
Server((host, int(port)), Handler).serve_forever()
