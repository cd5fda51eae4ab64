"""Requests before there is anybody to ask: what the interpreter learns of code that has run (which kinds of objects come by, where
attributes are) is in the snapshot, and a fresh instance need not learn it again.

The adapter is warmed with an application of our own. The app's own code runs only for paths that the builder was told: whatever
that leaves in memory is in the file, too."""

from urllib.parse import unquote_to_bytes

from componentize_py_types import Err

from . import gateway, streams

# The interpreter makes up its mind within a few.
_TIMES = 32

# As a host has them, with nobody's values.
_VARIABLES = {
    "GATEWAY_INTERFACE": "CGI/1.1",
    "HTTP_ACCEPT": "*/*",
    "HTTP_HOST": "localhost",
    "HTTP_USER_AGENT": "wasgi-build",
    "REMOTE_ADDR": "127.0.0.1",
    "REMOTE_PORT": "1",
    "REQUEST_METHOD": "GET",
    "SCRIPT_NAME": "",
    "SERVER_NAME": "localhost",
    "SERVER_PORT": "80",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "SERVER_SOFTWARE": "wasgi-build",
    "wasgi.request_id": "0000000000000000",
}


def adapter():
    """A list and an iterable, the two ways that responses take."""
    for _ in range(_TIMES):
        _ask(_listed, "/")
        _ask(_iterated, "/")


def app(application, targets):
    """GET of each path, as often; what came of it: its status, or its exception."""
    return [[target, [_ask(application, target) for _ in range(_TIMES)][-1]] for target in targets]


def _listed(environ, start_response):
    body = environ["REQUEST_METHOD"].encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def _iterated(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
    return iter([b"one", b"two"])


def _ask(application, target):
    path, _, query = target.partition("?")
    own = {"PATH_INFO": unquote_to_bytes(path).decode("latin-1"), "QUERY_STRING": query, "REQUEST_URI": target}
    block = "".join(f"{name}\0{value}\0" for name, value in {**_VARIABLES, **own}.items()).encode("latin-1")
    host = _Host()
    real, gateway.gateway = gateway.gateway, host
    streams.gateway = host
    try:
        head, _, more = gateway.call(application, block, False, False, False)
        status = head and head[0]
        while more:
            head, _, more = gateway.next_part()
            status = status or head and head[0]
        return status or host.status or "no response"
    except Err as error:
        return f"{error.value.name}: {error.value.message}"
    finally:
        gateway.close()
        gateway.errors.renew()
        gateway.gateway = streams.gateway = real


class _Host:
    """In place of the host, of which there is none yet: a request without body, and a client that takes everything."""

    status = None

    def __init__(self):
        self.StartResponse = self.Input = self.Errors = self

    def current(self):
        return self

    def call(self, status, headers=None, exc_info=None):
        """Of `start_response`, and of the `write` that it returns."""
        if headers is not None:
            self.status = status
        return self

    def read(self, size):
        return b""

    readline = read

    def write(self, text):
        """For the log of nobody."""

    def flush(self):
        pass
