"""Exceptions that a framework has caught and answers for by itself. PEP 3333 has `exc_info` for that, which few of them pass: the exception is noted
where they tell of it, and goes to the host with the response, if that is an error's (docs/decisions/0035-caught.md)."""

import functools
import logging
import sys

from . import world

# Of the call in progress, which begins with None: the exception that a framework told of last, and the last log record that has one, whoever
# logged it.
last = logged = None


def begin():
    """A call begins."""
    global last, logged
    last = logged = None


def note(error):
    global last
    if error is not None:
        last = error


def of_response():
    """What a response is about that says the app has failed; None if nobody has told."""
    return sys.exception() if last is None else last


def is_told(error, message, lines):
    """Whether the app's log has its traceback: by a formatter, which leaves it with the record, or in these lines."""
    if logged is not None and logged.exc_info[1] is error and logged.exc_text:
        return True
    return "Traceback (most recent call last)" in lines and f"{type(error).__name__}{message and ': '}{message}" in lines


def install():
    """Before the app is imported: it may put a factory of its own around this one."""
    make = logging.getLogRecordFactory()

    def factory(*arguments, **keywords):
        global last, logged
        record = make(*arguments, **keywords)
        if record.levelno >= logging.ERROR and record.exc_info and record.exc_info[1] is not None:
            logged = record
            # What the app logs by itself, it knows of: what it answers then is meant so.
            if not world.is_in(world.APP, record.pathname):
                last = record.exc_info[1]
        return record

    logging.setLogRecordFactory(factory)


def watch(signal):
    """Of a framework that sends one whenever a request ends with an exception (Django, Flask): it may log nothing."""
    signal.connect(_receive)


def _receive(*_, **__):
    note(sys.exception())


def watch_handlers(flask):
    """Of Flask: what an error handler of the app answers is told to nobody. Those that are responses themselves (`abort(503)`) are no failures."""
    handle = getattr(flask, "handle_user_exception", None)
    if handle is None:
        return
    from werkzeug.exceptions import HTTPException

    @functools.wraps(handle)
    def handle_user_exception(app, error):
        if not isinstance(error, HTTPException):
            note(error)
        return handle(app, error)

    flask.handle_user_exception = handle_user_exception
