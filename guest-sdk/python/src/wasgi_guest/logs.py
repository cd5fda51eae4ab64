"""Log files of the `logging` module: opened when there is something to log, not by the import; where they cannot be written, which is anywhere
but in /data, what is logged goes to standard error, which is the app's log."""

import logging
import sys

from . import world


class _AppsLog:
    """In place of a file."""

    def write(self, text):
        return sys.stderr.write(text)

    def flush(self):
        sys.stderr.flush()

    def fileno(self):
        return 2

    def seek(self, *_):
        """One that is rotated by its size never grows."""
        return 0

    tell = seek

    def close(self):
        """Standard error stays."""


def install():
    """Before the app is imported: classes of its own may be derived from this one."""
    opened = logging.FileHandler._open

    def _open(self):
        if not world.is_served:
            return _AppsLog()
        try:
            return opened(self)
        except OSError:
            return _AppsLog()

    logging.FileHandler._open = _open


def finish(report):
    """Once the app is imported."""
    for reference in list(logging._handlerList):
        handler = reference()
        if not isinstance(handler, logging.FileHandler):
            continue
        if isinstance(handler.stream, _AppsLog):
            handler.stream = None
        if world.is_in(world.DATA, handler.baseFilename):
            report["data"] = True
        else:
            name = handler.baseFilename.removeprefix(f"{world.APP}/")
            report.setdefault("places", []).append(
                [None, 0, f"what is logged to {name} goes to the app's log: nothing can be written there when it is served. A log file is kept in {world.DATA}"]
            )
