"""The app of tests/guests/probe in Python: a path for each behaviour that the tests look at, and the same answers."""

import hashlib
import io
import itertools
import os
import random
import secrets
import sys
import tempfile
import time
import uuid
import weakref
from urllib.parse import unquote
from wsgiref.validate import validator

import faults
import promises
import script

TEXT = [("Content-Type", "text/plain")]
BUILT = os.environ.get("BUILT", "no")
calls = 0
kept = []


class ProbeError(Exception):
    pass


class Query:
    """The query string's pairs, decoded: a byte becomes the code point of the same number."""

    def __init__(self, environ):
        pairs = (pair.partition("=") for pair in environ.get("QUERY_STRING", "").split("&"))
        self.pairs = [(name, decode(value)) for name, equals, value in pairs if equals]

    def all(self, name):
        return [value for found, value in self.pairs if found == name]

    def text(self, name, default=""):
        return next(iter(self.all(name)), default)

    def number(self, name, default=0):
        return int(self.text(name, str(default)))


def decode(text):
    first, *rest = text.split("%u")
    decoded = unquote(first, encoding="latin-1")
    for piece in rest:
        decoded += chr(int(piece[:4], 16)) + unquote(piece[4:], encoding="latin-1")
    return decoded


def app(environ, start_response):
    """The probe; with the validator in between, where the sidecar says so."""
    return (validated if "VALIDATED" in environ else probe)(environ, start_response)


def probe(environ, start_response):
    path = environ["PATH_INFO"]
    query = Query(environ)
    # Wherever the app is mounted, and whatever the path is.
    if query.number("dump"):
        return dump(environ, start_response)
    handler = PATHS.get(path)
    if handler is None:
        start_response("404 Not Found", TEXT)
        return [f"probe has no {path}".encode()]
    return handler(environ, query, start_response)


validated = validator(probe)


def text(start_response, answer):
    start_response("200 OK", TEXT)
    return [answer.encode()]


def dump(environ, start_response):
    """Every variable of CGI as `NAME=value`, a line each, in bytes as they came."""
    start_response("200 OK", TEXT)
    lines = [
        f"{name}={value}\n"
        for name, value in environ.items()
        if isinstance(value, str) and not name.startswith("wsgi.")
    ]
    return ["".join(lines).encode("latin-1")]


def hello(environ, query, start_response):
    return text(start_response, "hello")


def show_environ(environ, query, start_response):
    return dump(environ, start_response)


def change_environ(environ, query, start_response):
    environ["PATH_INFO"] = "/changed"
    environ["X_NEW"] = "new"
    del environ["QUERY_STRING"]
    return dump(environ, start_response)


def gateway(environ, query, start_response):
    assert type(environ) is dict
    assert environ["wsgi.version"] == (1, 0) and environ["wsgi.multithread"] is False
    values = [
        f"{name}={environ[f'wsgi.{name}']}" for name in ("url_scheme", "multiprocess", "run_once", "input_terminated")
    ]
    return text(start_response, " ".join(values).replace("True", "true").replace("False", "false"))


def log(environ, query, start_response):
    for line in range(query.number("lines", 1)):
        print(line, "x" * query.number("bytes", 10))
    print("on stderr", file=sys.stderr)
    environ["wsgi.errors"].write("on wsgi.errors\nwithout an end")
    return text(start_response, "logged")


def errors(environ, query, start_response):
    stream = environ["wsgi.errors"]
    stream.write("written \xe9\u20ac\U0001f600\n")
    stream.writelines(["first of two\n", "second of two\n"])
    stream.write("flushed without an end")
    stream.flush()
    stream.write("left without an end")
    return text(start_response, "written")


class CountingFile(io.BytesIO):
    """A file that says when it is closed. Its bytes count up."""

    def __init__(self, environ, size):
        super().__init__((bytes(range(251)) * (size // 251 + 1))[:size])
        self.errors = environ["wsgi.errors"]

    def close(self):
        self.errors.write(f"closed the file at {self.tell()}\n")
        super().close()


def file(environ, query, start_response):
    """A file of `bytes`, from `offset`, in blocks of `block`; with `promise`, a Content-Length."""
    wrapped = CountingFile(environ, query.number("bytes", 10))
    wrapped.seek(query.number("offset"))
    promise = query.text("promise")
    start_response("200 OK", [*TEXT, ("Content-Length", promise)] if promise else list(TEXT))
    return environ["wsgi.file_wrapper"](wrapped, query.number("block", 256 << 10))


def length(environ, query, start_response):
    """Promises `promise` bytes, and gives `blocks` blocks of `bytes`."""
    start_response("200 OK", [*TEXT, ("Content-Length", query.text("promise", "0"))])
    blocks = (b"x" * query.number("bytes", 10) for _ in range(query.number("blocks", 1)))
    return blocks if query.number("iterator", 1) else list(blocks)


def write(environ, query, start_response):
    """`write=` each, then `block=` each."""
    write = start_response(query.text("status", "200 OK"), TEXT)
    for block in query.all("write"):
        write(block.encode("latin-1"))
    return [block.encode("latin-1") for block in query.all("block")]


def stream(environ, query, start_response):
    """`blocks` blocks of `bytes` each, `pause` milliseconds before each."""
    start_response("200 OK", TEXT)
    return blocks(query.number("blocks", 1), query.number("bytes", 10), query.number("pause"))


def blocks(count, size, pause):
    try:
        for index in range(count):
            if pause:
                time.sleep(pause / 1000)
            yield bytes([ord("a") + index % 26]) * size
    finally:
        print("closed stream")


def echo(environ, query, start_response):
    body = environ["wsgi.input"].read(-1)
    start_response("200 OK", TEXT)
    return [body]


def count(environ, query, start_response):
    """How many bytes there were, and their sum."""
    size = total = 0
    while block := environ["wsgi.input"].read(1 << 20):
        size += len(block)
        # Faster than sum(block), which makes an object of each byte.
        while block:
            value, before = block[0], len(block)
            block = block.translate(None, bytes([value]))
            total += value * (before - len(block))
    return text(start_response, f"{size} bytes, sum {total}")


def read(environ, query, start_response):
    """`op=read:5`, `op=readline:100`, `op=readlines:0`, `op=lines:2` in order: a line for each, with what it gave."""
    stream = environ["wsgi.input"]
    answer = []
    for op in query.all("op"):
        op, _, size = op.partition(":")
        size = int(size)
        match op:
            case "read" | "once":
                answer.append(quoted(stream.read(size)))
            case "readline":
                answer.append(quoted(stream.readline(size)))
            case "readlines":
                answer.append(f"[{', '.join(map(quoted, stream.readlines(size)))}]")
            case "lines":
                answer.append(f"[{', '.join(map(quoted, itertools.islice(stream, size)))}]")
    return text(start_response, "".join(f"{line}\n" for line in answer))


def quoted(data):
    """As Rust writes a string."""
    escapes = {"\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "\\": "\\\\"}
    return '"' + "".join(escapes.get(char, char) for char in data.decode("latin-1")) + '"'


def echo_blocks(environ, query, start_response):
    """Each piece of the request body comes back as soon as it was read."""
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    stream = environ["wsgi.input"]
    if hasattr(stream, "read1"):
        return iter(lambda: stream.read1(65536), b"")
    # PEP 3333 has nothing but `read`, which insists on its size.
    return iter(lambda: stream.read(query.number("block", 1)), b"")


def pbkdf2(environ, query, start_response):
    arguments = [query.text(name).encode("latin-1") for name in ("password", "salt")]
    length = query.number("length") or None
    return text(start_response, hashlib.pbkdf2_hmac(query.text("hash"), *arguments, query.number("rounds"), length).hex())


def scrypt(environ, query, start_response):
    salt, (n, r, p) = query.text("salt").encode(), (query.number(name) for name in "nrp")
    return text(start_response, hashlib.scrypt(query.text("password").encode(), salt=salt, n=n, r=r, p=p).hex())


def echo_lines(environ, query, start_response):
    start_response("200 OK", TEXT)
    return list(environ["wsgi.input"])


def variable(environ, query, start_response):
    return text(start_response, str(os.environ.get(query.text("name"))))


def built(environ, query, start_response):
    return text(start_response, BUILT)


def fault(environ, query, start_response):
    faults.run(query)
    return text(start_response, "survived")


def then(environ, query, start_response):
    """A block, and then the fault `kind`."""
    start_response("200 OK", TEXT)
    return block_then(query)


def block_then(query):
    yield b"a block"
    faults.run(query)
    yield b"survived"


def state(environ, query, start_response):
    """How many calls this instance has served."""
    global calls
    calls += 1
    kept.append(b"canary-of-a-call" * query.number("plant"))
    return text(start_response, f"call {calls}")


def chance(environ, query, start_response):
    """What must differ from instance to instance, also where it was asked for when the app was built."""
    values = (
        random.random(),
        os.urandom(8).hex(),
        time.time(),
        secrets.token_hex(8),
        tempfile.mktemp(dir="/"),
        uuid.uuid4(),
        uuid.getnode(),
        uuid.uuid7(),
    )
    return text(start_response, " ".join(map(str, values)))


class Watched:
    """Somebody waits for its end."""


watched = Watched()
unwatched = Watched()
ended = []
weakref.finalize(watched, ended.append, "ended")
# It has a finaliser.
buffer = io.StringIO()


def settled(environ, query, start_response):
    """Whether references are counted to what an import has made: not, where nobody waits for its end; and an end that somebody waits for comes."""
    global watched
    staying = (settled, ProbeError, PATHS, unwatched, settled.__code__, settled.__code__.co_consts, sys.modules[__name__])
    immortal = [sys.getrefcount(each) >= 1 << 30 for each in staying]
    counted = [sys.getrefcount(each) < 1 << 30 for each in (watched, buffer, environ)]
    watched = None
    return text(start_response, f"{immortal} {counted} {ended}")


def promise(environ, query, start_response):
    return text(start_response, promises.try_(query.text("of")))


PATHS = {
    "": hello,
    "/": hello,
    "/hello": hello,
    "/environ": show_environ,
    "/change-environ": change_environ,
    "/gateway": gateway,
    "/log": log,
    "/errors": errors,
    "/script": script.run,
    "/file": file,
    "/length": length,
    "/write": write,
    "/stream": stream,
    "/echo": echo,
    "/count": count,
    "/read": read,
    "/echo-blocks": echo_blocks,
    "/echo-lines": echo_lines,
    "/pbkdf2": pbkdf2,
    "/scrypt": scrypt,
    "/variable": variable,
    "/built": built,
    "/fault": fault,
    "/then": then,
    "/state": state,
    "/chance": chance,
    "/settled": settled,
    "/promise": promise,
}
