"""The sections that a component gets beside its code: `wasgi:app`, the manifest, and `wasgi:files`, the files as the guest
sees them (docs/decisions/0012-python-apps.md)."""

import gzip
import io
import json
import os
import tarfile
from pathlib import Path

# Of the standard library: what no server needs.
_LIBRARY_LEFT_OUT = {
    "__phello__",
    "ensurepip",
    "idlelib",
    "lib-dynload",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "test",
    "tests",
    "tkinter",
    "turtledemo",
    "venv",
}


def section(name, contents):
    """A custom section: of a module as of a component."""
    name = name.encode()
    payload = _number(len(name)) + name + contents
    return b"\0" + _number(len(payload)) + payload


def _number(value):
    """LEB128."""
    encoded = bytearray()
    while True:
        low = value & 0x7F
        value >>= 7
        encoded.append(low | (0x80 if value else 0))
        if not value:
            return bytes(encoded)


def manifest(report):
    """What the host is told about the app."""
    described = {"version": 1, "language": "python", "instances": "reuse"}
    if static := report.get("static"):
        described["static"] = static
    if report.get("data"):
        described["data"] = True
    return json.dumps(described, ensure_ascii=False).encode()


def files(folder):
    """Those of a folder that travel: the build leaves compiled ones beside them."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and "__pycache__" not in path.parts:
            yield path


def _empty_folders(folder):
    """Those that an import has made (`os.makedirs(app.instance_path, exist_ok=True)`) and asks for again when a command runs it once more."""
    for path, folders, names in os.walk(folder):
        if path != str(folder) and not names and not folders:
            yield Path(path)


def archive(folders, library):
    """A compressed tar of `folders` (name in the archive → folder) and the standard library's tar."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=9, mtime=0) as compressed:
        with tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name, folder in folders.items():
                for path in files(folder):
                    _add(tar, f"{name}/{path.relative_to(folder)}", path.read_bytes(), path.stat().st_mtime)
                for path in _empty_folders(folder):
                    entry = tarfile.TarInfo(f"{name}/{path.relative_to(folder)}")
                    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                    tar.addfile(entry)
            with tarfile.open(library) as source:
                for entry in source:
                    if entry.isfile() and not _LIBRARY_LEFT_OUT.intersection(entry.name.split("/")):
                        _add(tar, entry.name, source.extractfile(entry).read(), entry.mtime)
    return buffer.getvalue()


def _add(tar, name, contents, mtime):
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime, entry.mode = len(contents), int(mtime), 0o644
    tar.addfile(entry, io.BytesIO(contents))
