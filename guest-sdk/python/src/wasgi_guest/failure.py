"""Why the app could not be imported, for the builder to explain."""

import traceback

from . import world


def described(error):
    """What the report says of an exception that ended the import."""
    frames = [[frame.filename, frame.lineno] for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        frames.append([error.filename, error.lineno])
    return {
        "type": type(error).__name__,
        "message": str(error),
        "module": getattr(error, "name", None) if isinstance(error, ImportError) else None,
        "frames": frames,
        "traceback": "".join(_own_frames(traceback.TracebackException.from_exception(error)).format()),
    }


def _own_frames(described):
    """Those of the app and its packages: the interpreter's, and what led to the app, are nobody's mistake."""
    own = [frame for frame in described.stack if world.is_own(frame.filename)]
    described.stack = traceback.StackSummary.from_list(own) if own else None
    for other in (described.__cause__, described.__context__):
        if other is not None:
            _own_frames(other)
    return described
