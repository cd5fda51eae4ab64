"""Requests to elsewhere: `http.client`, and what rests on it (`urllib.request`, `urllib3`, `requests`), through the host, which knows
where the app may go and speaks TLS, for which there is nothing in the sandbox.

`http.client` gets something that it takes for a socket: it understands the request that is written to it, has the host send it,
and is read like the response that came back."""

import errno
import functools
import http.client
import io
import socket
import sys

from componentize_py_types import Err
from wit_world.imports import outgoing_handler, streams, wasi_http_types as types

from . import imports, world

# What WASI takes at once in the form that waits, and what is asked for at once.
_WRITE_BYTES = 4 << 10
_READ_BYTES = 64 << 10
_HEAD_BYTES_MAX = 1 << 20

_METHODS = {
    "GET": types.Method_Get,
    "HEAD": types.Method_Head,
    "POST": types.Method_Post,
    "PUT": types.Method_Put,
    "DELETE": types.Method_Delete,
    "OPTIONS": types.Method_Options,
    "PATCH": types.Method_Patch,
}

# The host names the server that it has judged, and frames the body.
_HOSTS_OWN = frozenset(("host", "connection", "keep-alive", "proxy-connection", "transfer-encoding", "te", "upgrade", "http2-settings"))


_NO_NETWORK = "there is no network while the app is built"


def install():
    """Before the app is imported: whether there is HTTPS is asked when `urllib.request` is."""
    http.client.HTTPConnection.connect = _connect
    http.client.HTTPSConnection = HTTPSConnection
    http.client._create_https_context = lambda http_version: None
    if "HTTPSConnection" not in http.client.__all__:
        http.client.__all__.append("HTTPSConnection")
    # libc keeps the handle of the first network that it was given: one of the build's would end every instance that looks up a name.
    for name in ("getaddrinfo", "gethostbyaddr", "gethostbyname", "gethostbyname_ex", "getnameinfo"):
        if hasattr(socket, name):
            setattr(socket, name, _refused_while_asleep(getattr(socket, name), socket.gaierror, socket.EAI_FAIL))
    imports.after("urllib3.connectionpool", _take_over)
    for name in ("bind", "connect", "connect_ex", "sendto"):
        setattr(socket.socket, name, _refused_while_asleep(getattr(socket.socket, name), OSError, errno.ENETDOWN))


def _refused_while_asleep(function, kind, number):
    @functools.wraps(function)
    def call(*arguments, **keywords):
        if not world.is_served:
            raise kind(number, _NO_NETWORK)
        return function(*arguments, **keywords)

    return call


def _take_over(_):
    """What has looks of its own at sockets and TLS, as soon as it is there: an app may import it when a request comes."""
    from . import urllib3

    urllib3.install()


def _connect(self):
    sys.audit("http.client.connect", self, self.host, self.port)
    if self._tunnel_host:
        raise PermissionError(errno.EACCES, "there are no tunnels through the host")
    self.sock = Wire("http", self.host, self.port, self.timeout)


class HTTPSConnection(http.client.HTTPConnection):
    """HTTPS; the host speaks it, and knows the authorities, so that a context says nothing."""

    default_port = http.client.HTTPS_PORT

    def __init__(self, host, port=None, *, timeout=socket._GLOBAL_DEFAULT_TIMEOUT, source_address=None, context=None, blocksize=8192):
        super().__init__(host, port, timeout, source_address, blocksize=blocksize)

    def connect(self):
        _connect(self)
        self.sock.scheme = types.Scheme_Https()


class Wire:
    """What is taken for a socket: a request after the other, each on a connection of the host's."""

    def __init__(self, scheme, host, port, timeout):
        self.scheme = types.Scheme_Https() if scheme == "https" else types.Scheme_Http()
        self.authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.settimeout(timeout)
        self._request = None
        self._response = None
        self._head = b""

    def settimeout(self, timeout):
        if timeout is socket._GLOBAL_DEFAULT_TIMEOUT:
            timeout = socket.getdefaulttimeout()
        self.timeout = timeout

    def setsockopt(self, *_):
        """The connection is the host's."""

    def sendall(self, data):
        data = bytes(data)
        if self._request is None:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                if len(self._head) > _HEAD_BYTES_MAX:
                    raise OSError(errno.EMSGSIZE, "the head of the request is too large")
                return
            self._head = b""
            self._request = _Request(head, self)
        self._request.write(data)
        if self._request.is_whole:
            # Here what went wrong is the request's, as it is for a socket that cannot be connected.
            self._response = self._request.response()
            self._request = None

    def makefile(self, mode="rb", *_, **__):
        if self._request is not None:
            self._response, self._request = self._request.response(), None
        response, self._response = self._response, None
        if response is None:
            raise OSError(errno.ENOTCONN, "no request was sent")
        return io.BufferedReader(response, _READ_BYTES)

    def close(self):
        self._request = self._response = None

    def shutdown(self, how):
        """There is nothing to say to the host that closing does not."""


class _Request:
    """One request under way."""

    def __init__(self, head, wire):
        if not world.is_served:
            raise OSError(errno.ENETDOWN, _NO_NETWORK)
        start, *lines = head.decode("latin-1").split("\r\n")
        method, _, rest = start.partition(" ")
        target = rest.rpartition(" ")[0]
        self._chunks = None
        self._left = 0
        self._body = self._stream = None
        fields = types.Fields()
        for line in lines:
            name, _, value = line.partition(":")
            name, value = name.strip().lower(), value.strip()
            if name == "content-length":
                self._left = int(value)
            elif name == "transfer-encoding" and value.lower() == "chunked":
                self._chunks = _Chunks()
            if name not in _HOSTS_OWN:
                _said(fields.append, name, value.encode("latin-1"))
        request = types.OutgoingRequest(fields)
        _said(request.set_method, _METHODS.get(method, lambda: types.Method_Other(method))())
        _said(request.set_scheme, wire.scheme)
        _said(request.set_authority, wire.authority)
        _said(request.set_path_with_query, target)
        if not self.is_whole:
            self._body = _said(request.body)
            self._stream = _said(self._body.write)
        self._future = _said(outgoing_handler.handle, request, _options(wire.timeout))

    @property
    def is_whole(self):
        return self._left <= 0 if self._chunks is None else self._chunks.ended

    def write(self, data):
        if self._chunks is not None:
            for block in self._chunks.take(data):
                self._write(block)
        elif data:
            self._left -= len(data)
            self._write(data)

    def _write(self, data):
        try:
            for at in range(0, len(data), _WRITE_BYTES):
                self._stream.blocking_write_and_flush(data[at : at + _WRITE_BYTES])
        except Err:
            # The host takes no more of it: why, it says with the response.
            pass

    def response(self):
        """Waits for the head of the response."""
        if self._body is not None:
            _drop(self._stream)
            body, self._body, self._stream = self._body, None, None
            try:
                types.OutgoingBody.finish(body, None)
            except Err:
                pass
        waiting = self._future.subscribe()
        waiting.block()
        _drop(waiting)
        outcome = self._future.get().value
        _drop(self._future)
        if isinstance(outcome, Err):
            raise _error(outcome.value)
        return _Response(outcome.value)


class _Response(io.RawIOBase):
    """A response as a server would have written it, with a body that ends where it ends."""

    def __init__(self, response):
        status = response.status()
        lines = [f"HTTP/1.1 {status} {http.client.responses.get(status, '')}"]
        headers = response.headers()
        lines += [f"{name}: {value.decode('latin-1')}" for name, value in headers.entries()]
        _drop(headers)
        self._rest = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        body = _said(response.consume)
        # A resource goes after those that were made from it.
        self._parts = [_said(body.stream), body, response]

    def readable(self):
        return True

    def readinto(self, buffer):
        if not self._rest and self._parts:
            self._rest = self._next()
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def _next(self):
        while True:
            try:
                block = self._parts[0].blocking_read(_READ_BYTES)
            except Err as error:
                try:
                    match error.value:
                        case streams.StreamError_LastOperationFailed(value=cause):
                            code = types.http_error_code(cause)
                            raise (ConnectionError("the response broke off") if code is None else _error(code)) from None
                    return b""
                finally:
                    self._release()
            if block:
                return block

    def _release(self):
        while self._parts:
            _drop(self._parts.pop(0))

    def close(self):
        self._release()
        super().close()


class _Chunks:
    """`Transfer-Encoding: chunked`, undone: the host frames the body anew."""

    def __init__(self):
        self._rest = b""
        self.ended = False

    def take(self, data):
        self._rest += data
        while not self.ended:
            size, end, after = self._rest.partition(b"\r\n")
            if not end:
                return
            size = int(size.split(b";")[0], 16)
            if len(after) < size + 2:
                return
            block, self._rest = after[:size], after[size + 2 :]
            if block:
                yield block
            else:
                self.ended = True


def _options(timeout):
    if timeout is None:
        return None
    options = types.RequestOptions()
    nanoseconds = max(1, int(timeout * 1_000_000_000))
    for set_timeout in (options.set_connect_timeout, options.set_first_byte_timeout, options.set_between_bytes_timeout):
        _said(set_timeout, nanoseconds)
    return options


def _said(ask, *arguments):
    """What the host says to it; what it refuses is an error as sockets have them."""
    try:
        return ask(*arguments)
    except Err as error:
        value = error.value
        if type(value).__name__.startswith("ErrorCode_"):
            raise _error(value) from None
        what = ask.__name__.removeprefix("set_").replace("_", " ")
        raise ValueError(f"the host takes no request with this {what}: {arguments[0] if arguments else ''!r}") from None


def _drop(resource):
    resource.__exit__(None, None, None)


def _error(code):
    """An error code of the host as the exception that a socket would raise."""
    name = type(code).__name__.removeprefix("ErrorCode_")
    match name:
        case "HttpRequestDenied" | "DestinationIpProhibited":
            return PermissionError(errno.EACCES, f"the host denies the request ({name}): the app's log says why")
        case "ConnectionLimitReached" | "HttpRequestBodySize" | "HttpResponseBodySize":
            return OSError(errno.EDQUOT, f"the request meets a limit of the host ({name}): the app's log says which")
        case "DnsTimeout" | "ConnectionTimeout" | "ConnectionReadTimeout" | "ConnectionWriteTimeout" | "HttpResponseTimeout":
            return TimeoutError(errno.ETIMEDOUT, f"timed out ({name})")
        case "DnsError" | "DestinationNotFound":
            return socket.gaierror(socket.EAI_NONAME, "the name is not known")
        case "ConnectionRefused":
            return ConnectionRefusedError(errno.ECONNREFUSED, "the connection was refused")
        case "DestinationUnavailable" | "DestinationIpUnroutable":
            return OSError(errno.EHOSTUNREACH, f"the server cannot be reached ({name})")
        case "TlsCertificateError":
            return ConnectionError(
                "nobody vouches for the server's certificate, or it is for another name: the host believes the system's "
                "authorities, or those in its outbound_cafile"
            )
        case "TlsProtocolError" | "TlsAlertReceived":
            return ConnectionError(f"there is no TLS with the server ({name})")
        case "HttpRequestUriInvalid" | "HttpRequestMethodInvalid" | "HttpRequestUriTooLong":
            return ValueError(f"the request cannot be sent ({name})")
        case _:
            return ConnectionResetError(errno.ECONNRESET, f"the response cannot be read ({name})")
