"""The folders from which a component is made. They lie in it as they lie here: `app` is `/0` in the guest, `dependencies` `/1`,
and so on, at build time as at run time."""

import enum
import functools
import json
import os
import re
import shutil
import tomllib
from importlib import metadata
from pathlib import Path

from .errors import BuildError

# Below which the guest has the app's files, and its packages: componentize-py's python paths, in the order of `Stage.ORDER`.
APP, PACKAGES = "/0/", "/1/"

# What a project has beside the app, and nothing that is served should hold.
_LEFT_OUT = {
    ".git",
    ".hg",
    ".svn",
    ".idea",
    ".vscode",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".tox",
    ".nox",
    ".wasgi",
    "__pycache__",
    "node_modules",
}
# Of these, also what a link leads to further inside: they know who may fetch what, or are the host's.
_CLOSED = {".git", ".hg", ".svn", ".wasgi"}
_LEFT_OUT_SUFFIXES = (".pyc", ".pyo", ".wasm", ".swp", "~")
# Of those, what nobody misses.
_NOBODYS_SUFFIXES = (".pyc", ".pyo", ".swp", "~")
# Secrets of a developer's machine: `.env.local`, `prod.env`.
_SECRETS = re.compile(r"\.env.*|.*\.env")
# Databases of SQLite by name, and what lies beside them while they are written. A `.db` may be something else.
_DATABASES = re.compile(r".*\.(sqlite\w*|s3db)|.*\.(sqlite\w*|s3db|db\d?|sdb)-(wal|shm|journal)")
_BESIDE_A_DATABASE = re.compile(r"(.+)-(wal|shm|journal)")
# How they begin, under whatever name: the database, its log of writes, its journal.
_DATABASE_MAGIC = b"SQLite format 3\0"
_DATABASE_MAGICS = (_DATABASE_MAGIC, b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83", b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7")

# Packages that are in every component: `cgi` and `cgitb`, and the time zones.
_EVERYWHERE = ("legacy-cgi", "tzdata")

_FILES_MAX = 20_000
_BYTES_MAX = 500 << 20


class Kind(enum.Enum):
    """What becomes of a file in the app's folder, or of a link there."""

    TAKEN = enum.auto()
    LEFT_OUT = enum.auto()
    # It leads out of the folder, or nowhere.
    LINK = enum.auto()


def files(source):
    """The files in an app's folder that are its own, or could be taken for it. Links within the folder are followed, as the app would do."""
    yield from _files(source, (source.resolve(),), _data(source))


def _files(folder, trail, data):
    """`trail`: the folders that lead here, without links; what leads back to one of them has no end."""
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        # It went while one looked.
        return
    except PermissionError:
        yield folder, Kind.LEFT_OUT
        return
    folders = []
    for name in names:
        path = folder / name
        try:
            real = path.resolve() if path.is_symlink() else path
        except (OSError, RuntimeError):
            # Links that lead to each other.
            yield path, Kind.LINK
            continue
        if _is_left_out(path, real) or path in data or real in data:
            continue
        if real is not path and not (real.is_relative_to(trail[0]) and real.exists()):
            yield path, Kind.LINK
        elif real is not path and _is_closed(real, trail[0], data):
            yield path, Kind.LEFT_OUT
        elif os.path.isdir(path):
            folders.append(path)
        # What a host reads that runs here: its own settings, and those of apps beside their files.
        elif os.path.isfile(path) and not (_is_hosts(path) or _is_hosts(real)):
            yield path, Kind.LEFT_OUT if _stays_here(path, real) else Kind.TAKEN
    for path in folders:
        real = path.resolve()
        if real not in trail:
            yield from _files(path, (*trail, real), data)


def _stays_here(path, real):
    """Secrets, databases, and what editors and compilers leave behind; under whatever name, and whatever a link to them is called."""
    for name in {path.name.lower(), real.name.lower()}:
        if name.endswith(_LEFT_OUT_SUFFIXES) or _SECRETS.fullmatch(name) or _DATABASES.fullmatch(name):
            return True
    if beside := _BESIDE_A_DATABASE.fullmatch(real.name):
        database = real.with_name(beside[1])
        if database.is_file() and _begins_as_database(database):
            return True
    return _begins_as_database(real)


def _begins_as_database(path):
    try:
        stat = path.stat()
        return _is_database(str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns)
    except OSError:
        # What cannot be read cannot be taken: it is among what was left out.
        return True


@functools.lru_cache(maxsize=1 << 16)
def _is_database(path, *_):
    """By the file's first bytes; read once as long as it is the same, since a watcher asks twice a second."""
    with open(path, "rb") as file:
        return file.read(len(_DATABASE_MAGIC)).startswith(_DATABASE_MAGICS)


def _is_closed(real, root, data):
    """Whether what a link leads to lies in a folder of which nothing is taken."""
    inside = real.relative_to(root)
    return bool(_CLOSED.intersection(inside.parts)) or any(place in data for place in real.parents)


def _is_hosts(path):
    return path.name == "wasgi.toml" or path.suffix == ".toml" and os.path.isfile(path.with_suffix(".wasm"))


class Stage:
    """A temporary folder with what goes into the component."""

    ORDER = ("app", "dependencies", "guest")

    def __init__(self, folder):
        self.folder = folder
        self.app, self.dependencies, self.guest = (folder / name for name in self.ORDER)
        # What `include` has added, with the places that it has there.
        self._included = {}
        # componentize-py adds the active environment to what is importable. This one is empty.
        self.environment = folder / "environment"
        for place in (self.app, self.dependencies, self.guest, self.environment / "lib/site-packages", folder / "tmp"):
            place.mkdir(parents=True)

    def take_app(self, source, output):
        """Copies the app's own files; returns those that were left out and that somebody may miss, with what they are."""
        return take(source, self.app, output)

    def include(self, path, source):
        """Adds what `--include` names, at the place that it has in the app's folder, or beside its files. A file is taken whatever it is; of a
        folder, what would be taken of the app's. Returns what was left out of it, as `take_app` does."""
        if not path.exists():
            raise BuildError(f"--include {path}: there is no such file or folder")
        # A link in the app's folder is included under its own name.
        inside = [full for full in (Path(os.path.abspath(path)), path.resolve()) if full.is_relative_to(source)]
        full = path.resolve()
        place = inside[0].relative_to(source) if inside else self._beside(full)
        if not full.is_dir():
            _copy(full, self.app / place)
            return []
        self._included[full] = place
        return [(place / inner, kind) for inner, kind in take(full, self.app / place)]

    def _beside(self, full):
        """Beside the app's files, or where it is in a folder that is included."""
        for folder, place in self._included.items():
            if full.is_relative_to(folder):
                return place / full.relative_to(folder)
        return Path(full.name)

    def lacking(self, left_out):
        """What of it `--include` has not added."""
        return [(path, kind) for path, kind in dict.fromkeys(left_out) if not (self.app / path).exists()]

    def take_guest(self, order):
        """Our own part, what every app gets with it, and what it is told."""
        source = Path(__file__).parent.parent / "wasgi_guest"
        shutil.copytree(source, self.guest / "wasgi_guest", ignore=shutil.ignore_patterns("__pycache__"))
        # What apps import of ours. The rest of the package builds them.
        for name in ("__init__.py", "keyvalue.py"):
            _copy(Path(__file__).parent / name, self.guest / "wasgi" / name)
        for library in (Path(__file__).parent / "native").glob("*.so"):
            _copy(library, self.guest / library.name)
        for name in _EVERYWHERE:
            distribution = metadata.distribution(name)
            for file in distribution.files or ():
                if file.parts[0] != ".." and not file.parts[0].endswith(".dist-info") and file.suffix != ".pyc":
                    _copy(distribution.locate_file(file), self.guest / file)
        (self.guest / "build.json").write_text(json.dumps(order))

    def has_answered(self):
        """Whether the guest came as far as saying how it went."""
        return any((self.guest / name).is_file() for name in ("report.json", "library.tar"))

    def report(self):
        """What the guest found; nothing if it came to no end."""
        try:
            return json.loads((self.guest / "report.json").read_text())
        except (OSError, ValueError):
            return {}

    def local(self, path, source):
        """A file as the guest sees it → as it is called here."""
        text = str(path)
        if text.startswith(APP):
            return os.path.relpath(source / text.removeprefix(APP))
        return text.removeprefix(PACKAGES)


def take(source, place, output=None, apart_from=frozenset()):
    """Copies a folder's files that are an app's own, but for what is being made and for what is called so at the top; returns those that were left
    out and that somebody may miss."""
    number = bytes_ = 0
    missed = []
    for path, kind in files(source):
        inside = path.relative_to(source)
        if path == output or not apart_from.isdisjoint(inside.parts[:1]):
            continue
        if kind is not Kind.TAKEN:
            missed.append((inside, kind))
            continue
        try:
            bytes_ += path.stat().st_size
            _copy(path, place / inside)
        except FileNotFoundError:
            # An editor's, that went meanwhile.
            continue
        number += 1
        if number > _FILES_MAX or bytes_ > _BYTES_MAX:
            raise BuildError(
                f"{source} has more than {_FILES_MAX} files or {_BYTES_MAX >> 20} MiB: go to the app's own folder, or name it with --chdir"
            )
    return [(path, kind) for path, kind in missed if kind is Kind.LINK or not path.name.endswith(_NOBODYS_SUFFIXES)]


def _data(source):
    """Where a host that runs in an app's folder keeps what its apps have in /data. The folder `data` may also hold what is the app's own:
    only what is called like one of the apps is the host's."""
    settings = source / "wasgi.toml"
    if not settings.is_file() and not (source / ".wasgi").is_dir():
        return set()
    try:
        said = tomllib.loads(settings.read_text())
    except (OSError, ValueError):
        said = {}
    apps, data = (source / str(said.get(f"{name}_dir", name)) for name in ("apps", "data"))
    names = (path.relative_to(apps).with_suffix("") for path in apps.rglob("*.wasm"))
    return {data / "+".join(name.parts) for name in names}


def _is_left_out(path, real):
    """What a project has beside the app, also where a link leads to it."""
    return bool({path.name, real.name} & _LEFT_OUT) or os.path.isfile(real / "pyvenv.cfg")


def _copy(source, place):
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, place)
