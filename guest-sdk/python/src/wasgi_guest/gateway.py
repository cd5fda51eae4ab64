"""The server side of PEP 3333 for one application: what the contract's `application` interface is called with becomes environ
and start_response; what the application returns becomes parts.

It runs for every request. What a small response needs is done in one call of the guest, without a call of the host.
"""

import traceback

import _wasgi_native
from componentize_py_types import Err
from wit_world.imports import gateway, wasgi_gateway_types as types

from . import caught
from .rules import checked
from .streams import Errors, FileWrapper, Input, stream_error, utf8

errors = Errors()

# What is in every environ.
_ALWAYS = {
    "wsgi.version": (1, 0),
    "wsgi.multithread": False,
    "wsgi.input_terminated": True,
    "wsgi.errors": errors,
    "wsgi.file_wrapper": FileWrapper,
}

# Names of variables that most requests have: made once, hashed once.
_USUAL = (
    "AUTH_TYPE",
    "CONTENT_LENGTH",
    "CONTENT_TYPE",
    "GATEWAY_INTERFACE",
    "HTTPS",
    "HTTP_ACCEPT",
    "HTTP_ACCEPT_ENCODING",
    "HTTP_ACCEPT_LANGUAGE",
    "HTTP_AUTHORIZATION",
    "HTTP_CACHE_CONTROL",
    "HTTP_CONNECTION",
    "HTTP_COOKIE",
    "HTTP_DNT",
    "HTTP_FORWARDED",
    "HTTP_HOST",
    "HTTP_IF_MODIFIED_SINCE",
    "HTTP_IF_NONE_MATCH",
    "HTTP_ORIGIN",
    "HTTP_PRAGMA",
    "HTTP_PRIORITY",
    "HTTP_RANGE",
    "HTTP_REFERER",
    "HTTP_SEC_CH_UA",
    "HTTP_SEC_CH_UA_MOBILE",
    "HTTP_SEC_CH_UA_PLATFORM",
    "HTTP_SEC_FETCH_DEST",
    "HTTP_SEC_FETCH_MODE",
    "HTTP_SEC_FETCH_SITE",
    "HTTP_SEC_FETCH_USER",
    "HTTP_TE",
    "HTTP_TRACEPARENT",
    "HTTP_UPGRADE_INSECURE_REQUESTS",
    "HTTP_USER_AGENT",
    "HTTP_VIA",
    "HTTP_X_FORWARDED_FOR",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_REAL_IP",
    "HTTP_X_REQUESTED_WITH",
    "HTTP_X_REQUEST_ID",
    "PATH_INFO",
    "QUERY_STRING",
    "REMOTE_ADDR",
    "REMOTE_PORT",
    "REQUEST_METHOD",
    "REQUEST_URI",
    "SCRIPT_NAME",
    "SERVER_NAME",
    "SERVER_PORT",
    "SERVER_PROTOCOL",
    "SERVER_SOFTWARE",
    "wasgi.request_id",
)
_wasgi_native.know(_USUAL)
_environ = _wasgi_native.environ

# What the log gets of one exception, in characters.
_MESSAGE_MAX = 4 << 10
_TRACEBACK_MAX = 64 << 10


class Call:
    """One call of the application, until its response is over."""

    # As each call begins: what it changes is its own. Nothing has to be set for that.
    # What start_response was called with, as long as it has not crossed.
    head = None
    started = False
    # The host has a head.
    passed = False
    iterating = False
    over = False
    iterator = None
    close = None
    # What is with the host of what start_response was called with.
    _headers = ()
    _write = None

    def start_response(self, status, headers, exc_info=None):
        if self.over:
            raise RuntimeError("start_response of a call that is over")
        if exc_info:
            try:
                self._restart(status, headers, exc_info)
            finally:
                exc_info = None
            return self.write
        if self.started:
            raise AssertionError("start_response was called a second time, without exc_info")
        self.started = True
        headers = checked(status, headers)
        if status[0] == "5" and (error := caught.of_response()) is not None:
            self._explain(status, headers, error)
        else:
            self.head = (status, headers)
        return self.write

    def _restart(self, status, headers, exc_info):
        """The host knows whether the headers are with the client."""
        self.started = True
        headers = checked(status, headers)
        self.head = None
        try:
            self._explain(status, headers, exc_info[1])
        except HeadersSent:
            raise exc_info[1].with_traceback(exc_info[2]) from None

    def _explain(self, status, headers, raised):
        """The response is about an exception: the host logs that."""
        try:
            self._write = gateway.StartResponse.current().call(status, headers, _told_once(raised))
        except Err as error:
            raise _protocol_error(error) from None
        self._headers, self.passed = headers, True

    def write(self, data, /):
        if self.over:
            raise RuntimeError("write() of a call that is over")
        if self.iterating:
            raise RuntimeError("write() may not be called while the returned iterable is iterated")
        if type(data) is not bytes:
            data = as_bytes(data)
        if self._write is None:
            status, headers = self.head
            self.head, self.passed = None, True
            try:
                self._write = gateway.StartResponse.current().call(status, headers, None)
            except Err as error:
                raise _protocol_error(error) from None
        try:
            self._write.call(data)
        except Err as error:
            raise stream_error(error) from None

    def part(self, blocks, more):
        """What crosses next."""
        head = self.head
        if head is not None:
            self.head, self.passed = None, True
        if not more and self.close is None:
            self.over = True
        return head, blocks, more

    def first(self, result):
        """The first part of what the application returned."""
        kind = type(result)
        if kind is list or kind is tuple:
            for block in result:
                if type(block) is not bytes:
                    return self.part([as_bytes(block) for block in result], False)
            return self.part(list(result), False)
        self.iterating = True
        self.close = getattr(result, "close", None)
        if kind is FileWrapper:
            self._promise(result)
        self.iterator = iter(result)
        block = self.step()
        if block is None:
            self.finish()
            return self.part([], False)
        if self._is_whole(block):
            self.finish()
            return self.part([block], False)
        return self.part([block], True)

    def step(self):
        """The next block that is not empty: an empty one sends nothing. None at the end."""
        for block in self.iterator:
            if type(block) is not bytes:
                block = as_bytes(block)
            if block:
                return block
        return None

    def _is_whole(self, block):
        """Whether the promised length is reached, so that nothing more is asked for."""
        for name, value in self._headers if self.head is None else self.head[1]:
            if len(name) == 14 and name.lower() == "content-length":
                return value.isdecimal() and len(block) >= int(value)
        return False

    def _promise(self, file):
        """A file has a length, where the application gave none."""
        if self.head is None or any(name.lower() == "content-length" for name, _ in self.head[1]):
            return
        length = file.left()
        if length is not None:
            self.head[1].append(("Content-Length", str(length)))

    def finish(self):
        """`close()` of what the application returned, once. What it raises comes too late for the response: it is logged."""
        close, self.close, self.iterator = self.close, None, None
        try:
            if close is not None:
                close()
        except BaseException as error:
            log(error)
        finally:
            self.over = True


# The call whose iterable the host is asking for blocks. An instance serves one call at a time.
_open = None


def call(app, variables, https, multiprocess, run_once):
    """`application(environ, start_response)`."""
    global _open
    call = Call()
    try:
        errors.renew()
        caught.begin()
        environ = _environ(variables)
        environ.update(_ALWAYS)
        environ["wsgi.url_scheme"] = "https" if https else "http"
        environ["wsgi.multiprocess"] = multiprocess
        environ["wsgi.run_once"] = run_once
        environ["wsgi.input"] = Input(call)
        part = call.first(app(environ, call.start_response))
    except BaseException as error:
        raise Err(_give_up(call, error)) from None
    _open = call if part[2] else None
    return part


def next_part():
    """`next(iterator)`."""
    call = _open
    if call is None:
        return None, [], False
    try:
        block = call.step()
        return call.part([] if block is None else [block], block is not None)
    except BaseException as error:
        raise Err(exc_info_of(error)) from None


def close():
    """`iterator.close()`."""
    global _open
    call, _open = _open, None
    if call is not None:
        call.finish()


def _give_up(call, error):
    """After an exception that the application let through: nobody will ask for the rest."""
    info = exc_info_of(error)
    call.finish()
    return info


def as_bytes(block):
    if isinstance(block, bytes):
        return bytes(block)
    raise TypeError(f"the body consists of bytes, not of {type(block).__name__}")


class HeadersSent(RuntimeError):
    """It is too late for another head."""


def exc_info_of(error):
    """An exception as text for the log. Where there is no memory or stack to make it, its name at least."""
    try:
        info = _named(error)
        info.traceback = _traceback(error)
        return info
    except BaseException:
        return types.ExcInfo(type(error).__name__, "", "")


def _told_once(error):
    """The same, without a traceback that the app's log has already."""
    try:
        info = _named(error)
        if caught.is_told(error, info.message, errors.traced):
            return info
    except BaseException:
        pass
    return exc_info_of(error)


def _named(error):
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return types.ExcInfo(name, _message(error)[:_MESSAGE_MAX], "")


def _message(error):
    try:
        return utf8(str(error))
    except Exception:
        return "(it cannot be shown: its __str__ failed)"


def _traceback(error):
    # The frames of this module are nobody's mistake.
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_globals is globals():
        frames = frames.tb_next
    text = utf8("".join(traceback.format_exception(type(error), error, frames)))
    if len(text) > _TRACEBACK_MAX:
        text = f"{text[: _TRACEBACK_MAX // 2]}\n…\n{text[-_TRACEBACK_MAX // 2 :]}"
    return text


def log(error):
    """For what nobody is left to be told."""
    try:
        errors.write(exc_info_of(error).traceback)
    except BaseException:
        pass


def _protocol_error(error):
    value = error.value
    cause = type(value).__name__.removeprefix("ProtocolError_")
    match cause:
        case "AlreadyStarted":
            return AssertionError("start_response was called a second time, without exc_info")
        case "BadStatus" | "BadHeader":
            return ValueError(f"{'bad status' if cause == 'BadStatus' else 'bad header'}: {value.value}")
        case "TooLarge":
            return ValueError("more headers, or more bytes in them, than the host allows")
        case "CallOver":
            return RuntimeError("start_response of a call that is over")
        case _:
            return HeadersSent("the headers are with the client already")
