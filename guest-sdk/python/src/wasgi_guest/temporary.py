"""Temporary files without a directory to put them in: a sandbox has none that it may write to, unless TMPDIR names one below /data.
Those without a name (large uploads) are kept in memory, where the app's limit counts them."""

import io
import tempfile


class MemoryFile(io.BytesIO):
    """What `TemporaryFile` returns; it has a name as little as those have."""

    name = None


def install():
    """`SpooledTemporaryFile` is made of it, too."""
    on_disk = tempfile.TemporaryFile

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
