"""Exceptions that a framework has caught and answers for by itself. PEP 3333 has `exc_info` for that, which few of them pass: the exception is noted
where they tell of it, and goes to the host with the response, if that is an error's (docs/decisions/0035-caught.md)."""

import logging
import sys

# Of the call in progress, which begins with None: the record with which the last one was logged, or itself.
last = None


def note(error):
    global last
    if error is not None:
        last = error


def of_response():
    """What a response is about that says the app has failed; None if nobody has told."""
    error = last.exc_info[1] if isinstance(last, logging.LogRecord) else last
    return sys.exception() if error is None else error


def is_told(error, message, lines):
    """Whether the app's log has its traceback: by a formatter, which leaves it with the record, or in these lines."""
    if isinstance(last, logging.LogRecord) and last.exc_info[1] is error and last.exc_text:
        return True
    return "Traceback (most recent call last)" in lines and f"{type(error).__name__}{message and ': '}{message}" in lines


def install():
    """Before the app is imported: it may put a factory of its own around this one."""
    make = logging.getLogRecordFactory()

    def factory(*arguments, **keywords):
        global last
        record = make(*arguments, **keywords)
        if record.levelno >= logging.ERROR and record.exc_info and record.exc_info[1] is not None:
            last = record
        return record

    logging.setLogRecordFactory(factory)


def watch(signal):
    """Of a framework that sends one whenever a request ends with an exception (Django, Flask): it may log nothing."""
    signal.connect(_receive)


def _receive(*_, **__):
    note(sys.exception())
