"""What PEP 3333 asks of a status and of headers.

The host enforces it for every guest; it is checked here too so that the mistake raises where it was made.
"""

import re
from http import HTTPStatus

_STATUS = re.compile(r"[0-9]{3} [^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*").fullmatch
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_CONTROL = re.compile(r"[\x00-\x1f\x7f]").search
_WIDE = re.compile(r"[^\x00-\xff]").search
_BAD_TEXT = re.compile(r"[\x00-\x1f\x7f]|[^\x00-\xff]").search

_HOP_BY_HOP = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
    )
)

# Names that passed, as they were written: applications use few, and ask for each of them in every response. A fresh instance has to have heard of them.
_USUAL = (
    "Accept-Ranges",
    "Access-Control-Allow-Origin",
    "Allow",
    "Cache-Control",
    "Content-Disposition",
    "Content-Encoding",
    "Content-Language",
    "Content-Length",
    "Content-Range",
    "Content-Security-Policy",
    "Content-Type",
    "Cross-Origin-Opener-Policy",
    "Date",
    "ETag",
    "Expires",
    "Last-Modified",
    "Link",
    "Location",
    "Permissions-Policy",
    "Referrer-Policy",
    "Retry-After",
    "Server",
    "Set-Cookie",
    "Strict-Transport-Security",
    "Vary",
    "WWW-Authenticate",
    "X-Content-Type-Options",
    "X-Frame-Options",
)
_passed = {written for name in _USUAL for written in (name, name.lower(), name.capitalize())}
_passed_statuses = {f"{status.value} {status.phrase}" for status in HTTPStatus if status >= 200}
_PASSED_MAX = 1000


def checked(status, headers):
    """The headers of `start_response(status, headers)`, in a list of their own; raises if a rule is broken."""
    if type(status) is not str or status not in _passed_statuses:
        _check_status(status)
    if not isinstance(headers, list):
        raise TypeError(f"the headers are not a list, but {_a(headers)}")
    pairs, text = [], []
    for header in headers:
        try:
            name, value = header
            if name not in _passed:
                _check_name(name)
            pairs.append((name, value))
            text.append(value)
        except (TypeError, ValueError) as error:
            raise _header_error(header, error) from None
    try:
        whole = "".join(text)
    except TypeError:
        whole = None
    if whole is None or _BAD_TEXT(whole):
        raise _value_error(pairs)
    return pairs


def _check_status(status):
    if not isinstance(status, str):
        raise TypeError(f"bad status {status!r}: it is not a string")
    if not _STATUS(status) or not status.isascii() and _WIDE(status):
        raise ValueError(f"bad status {status!r}: {_status_fault(status)}")
    if status[0] == "1":
        raise ValueError(f"bad status {status!r}: it is informational, and no final response")
    if len(_passed_statuses) < _PASSED_MAX:
        _passed_statuses.add(status)


def _status_fault(status):
    if wide := _WIDE(status):
        return f"{wide[0]!r} is beyond U+00FF"
    if re.match(r"[0-9]{3} ", status) and _CONTROL(status):
        return "it has a control character"
    return 'it is not three digits, a space and a reason ("200 OK")'


class _NameError(ValueError):
    """A fault of a header's name."""


def _check_name(name):
    if not isinstance(name, str):
        raise _NameError("its name is not a string")
    if not _TOKEN(name):
        raise _NameError("its name is not a token (RFC 9110 §5.6.2)")
    lower = name.lower()
    if lower == "status":
        raise _NameError("the status is not a header: it is the first argument of start_response")
    if lower in _HOP_BY_HOP:
        raise _NameError("it is hop-by-hop, and so the server's")
    if len(_passed) < _PASSED_MAX:
        _passed.add(name)


def _header_error(header, error):
    if isinstance(error, _NameError):
        return ValueError(f"bad header {header!r}: {error}")
    return TypeError(f"bad header {header!r}: it is not a tuple of two strings")


def _value_error(headers):
    for name, value in headers:
        if not isinstance(value, str):
            return TypeError(f"bad header {name!r}: its value is not a string, but {_a(value)}")
        if wide := _WIDE(value):
            return ValueError(f"bad header {name!r}: {wide[0]!r} in its value is beyond U+00FF")
        if _CONTROL(value):
            return ValueError(f"bad header {name!r}: its value has a control character")
    return ValueError("bad headers")


def _a(thing):
    return f"of type {type(thing).__name__}"
