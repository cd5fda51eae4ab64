"""`wsgi.input`, `wsgi.errors` and `wsgi.file_wrapper`."""

import os

from componentize_py_types import Err
from wit_world.imports import gateway

# What is asked for at once where an application wants everything.
_PIECE = 256 << 10
# The largest size that the contract has a number for.
_LINE_MAX = (1 << 32) - 1


class Disconnected(OSError):
    """The client has gone, or sent what is not HTTP."""


def stream_error(error):
    """The exception for what the host says when a body cannot be read or written."""
    cause = type(error.value).__name__.removeprefix("StreamError_")
    if cause == "Disconnected":
        return Disconnected(error.value.value)
    if cause == "TooLarge":
        return OSError("the request body is larger than the host allows")
    return ValueError("the call that this stream belongs to is over")


class Input:
    """`wsgi.input`: the request body. It keeps no buffer, so that reads and lines may be mixed."""

    __slots__ = ("_call", "_handle")

    def __init__(self, call):
        self._call = call
        self._handle = None

    def _input(self):
        if self._call.over:
            raise ValueError("wsgi.input of a call that is over")
        if self._handle is None:
            self._handle = gateway.Input.current()
        return self._handle

    def read(self, size=-1):
        handle = self._input()
        left = _LINE_MAX if size is None or size < 0 else size
        pieces = []
        try:
            while left > 0:
                piece = handle.read(min(left, _PIECE))
                if not piece:
                    break
                pieces.append(piece)
                left -= len(piece)
                if size is None or size < 0:
                    left = _LINE_MAX
        except Err as error:
            raise stream_error(error) from None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read1(self, size=-1):
        """At most `size` bytes, as soon as there are some."""
        handle = self._input()
        try:
            return handle.read(_PIECE if size is None or size < 0 else min(size, _PIECE))
        except Err as error:
            raise stream_error(error) from None

    def readinto(self, buffer):
        data = self.read1(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readline(self, size=-1):
        handle = self._input()
        left = _LINE_MAX if size is None or size < 0 else min(size, _LINE_MAX)
        pieces = []
        try:
            while left > 0:
                piece = handle.readline(left)
                if not piece:
                    break
                pieces.append(piece)
                if piece.endswith(b"\n"):
                    break
                left -= len(piece)
        except Err as error:
            raise stream_error(error) from None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def readlines(self, hint=-1):
        lines, read = [], 0
        for line in self:
            lines.append(line)
            read += len(line)
            if hint is not None and 0 < hint <= read:
                break
        return lines

    def __iter__(self):
        return self

    def __next__(self):
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    def readable(self):
        return True

    def writable(self):
        return False

    def seekable(self):
        return False

    @property
    def closed(self):
        return self._call.over

    def close(self):
        """Nothing: the body is the server's to close."""


class Errors:
    """`wsgi.errors`: text for the app's log. One serves every call: what keeps it (a log handler) writes to the call in progress."""

    encoding = "utf-8"

    def __init__(self):
        self._handle = None
        # The last traceback that the app has written in this call.
        self.traced = ""

    def renew(self):
        """Another call begins: a handle is good for one."""
        self._handle = None
        self.traced = ""

    def write(self, text):
        if not isinstance(text, str):
            raise TypeError(f"wsgi.errors takes str, not {type(text).__name__}")
        if self._handle is None:
            self._handle = gateway.Errors.current()
        self._handle.write(utf8(text))
        if "Traceback (most recent call last)" in text:
            self.traced = text
        return len(text)

    def writelines(self, lines):
        for line in lines:
            self.write(line)

    def flush(self):
        if self._handle is not None:
            self._handle.flush()

    def isatty(self):
        return False


def utf8(text):
    """The text with lone surrogates written out: they have no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="backslashreplace").decode()
    return text


class FileWrapper:
    """`wsgi.file_wrapper`: a file, from where it stands."""

    # Smaller blocks than this cost more than they save.
    _BLOCK_MIN = 64 << 10

    def __init__(self, filelike, blksize=8192):
        self.filelike = filelike
        self.blksize = max(blksize, self._BLOCK_MIN)
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self):
        return self

    def __next__(self):
        block = self.filelike.read(self.blksize)
        if not block:
            raise StopIteration
        return block

    def left(self):
        """How many bytes there are from here to the end; None if the file cannot say."""
        try:
            here = self.filelike.tell()
            end = self.filelike.seek(0, os.SEEK_END)
            self.filelike.seek(here)
            return max(end - here, 0)
        except (AttributeError, OSError, TypeError, ValueError):
            return None
