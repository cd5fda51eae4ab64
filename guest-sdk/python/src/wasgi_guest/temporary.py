"""Temporary files where there may be no directory to put them in: a sandbox has none that it may write to but what it keeps, /data.
Without that, those that have no name (large uploads) are in memory, where the app's limit counts them."""

import io
import os
import tempfile

from . import world

# Where TMPDIR names nothing else.
_PLACE = f"{world.DATA}/tmp"


class MemoryFile(io.BytesIO):
    """What `TemporaryFile` returns; it has a name as little as those have."""

    name = None


def install():
    """`SpooledTemporaryFile` is made of it, too."""
    on_disk = tempfile.TemporaryFile
    usual = tempfile._candidate_tempdir_list

    def candidates():
        """Asked for once, when somebody wants a temporary file."""
        try:
            os.makedirs(_PLACE, exist_ok=True)
        except OSError:
            return usual()
        return [*usual(), _PLACE]

    def TemporaryFile(
        mode="w+b", buffering=-1, encoding=None, newline=None, suffix=None, prefix=None, dir=None, *, errors=None
    ):
        try:
            return on_disk(mode, buffering, encoding, newline, suffix, prefix, dir, errors=errors)
        except OSError:
            if dir is not None:
                raise
        file = MemoryFile()
        if "b" in mode:
            return file
        return io.TextIOWrapper(file, encoding=encoding, errors=errors, newline=newline)

    tempfile.TemporaryFile = TemporaryFile
    tempfile._candidate_tempdir_list = candidates
