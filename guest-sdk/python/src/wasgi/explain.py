"""What a build says at the end: what was made of what, or why not and what to do."""

import os
import re

from . import bundle, dependencies
from .stage import APP, PACKAGES, Kind

# Modules that CPython for WebAssembly does not have, and what to do without.
_ABSENT = {
    "ssl": "there is no TLS inside the sandbox: move the import into the function that makes the connection",
    "_ssl": "there is no TLS inside the sandbox: move the import into the function that makes the connection",
    "_ctypes": "there are no shared libraries inside the sandbox: use a package that is pure Python",
    "_bz2": "bz2 is missing in the sandbox: use zlib or gzip",
    "_lzma": "lzma is missing in the sandbox: use zlib or gzip",
    "_posixsubprocess": "a sandbox starts no programs",
    "_multiprocessing": "a sandbox has one process and one thread",
    "_curses": "a sandbox has no terminal",
    "readline": "a sandbox has no terminal",
    "termios": "a sandbox has no terminal",
    "fcntl": "files cannot be locked in the sandbox, and need not be: an app with data runs one call at a time",
    "mmap": "files cannot be mapped in the sandbox: read them",
    "pwd": "a sandbox has no users",
    "grp": "a sandbox has no users",
    "resource": "a sandbox has no processes to limit: the host does that",
    "tkinter": "a sandbox has no display",
}

# What a host takes if nobody has told it otherwise.
_MODULE_SIZE = 64 << 20

# What there is no more of in a sandbox, or not yet when it is built: kinds of errors, words in their messages, and what to do.
_REFUSED = (
    (
        {"RuntimeError"},
        "start new thread",
        "it starts a thread while it is imported, and a sandbox has one thread only: start it nowhere, or do its work within requests",
    ),
    ({"MemoryError"}, "", "it takes more memory while it is imported than there can be in a sandbox: load it when a request comes, or less of it"),
    ({"OSError"}, "does not support processes", "a sandbox starts no programs: do without, or before the build"),
    ({"AttributeError"}, "'os' has no attribute '(fork|pipe)'", "a sandbox has one process and one thread: do its work within requests"),
    ({"AttributeError"}, "'time' has no attribute 'tzset'", "local time is UTC in a sandbox: zoneinfo knows the others"),
    ({"gaierror", "ConnectionError", "OSError", "URLError"}, "no network while", "connect when a request comes"),
    (
        {"OperationalError"},
        "unable to open database file",
        "the app is imported when it is built, and /data is there when it is served: connect when a request comes. Tables are made by a "
        "command (`wasgi manage FILE.wasm migrate`, or `-m MODULE` where the app is no Django project)",
    ),
    (
        {"FileNotFoundError"},
        r": '/data(/|')",
        "the app is imported when it is built, and /data is there when it is served: read, list and write what is in it when a request comes",
    ),
    (
        {"OperationalError"},
        "no such table",
        "the app is imported when it is built, without the databases of this machine, which stay here: ask for rows when a request comes",
    ),
)


def failure(report, stage, source, native):
    """Why the app could not be imported."""
    failed = report.get("failure")
    if failed is None:
        return "the app cannot be imported: it ended without saying why. Most likely it takes more memory than a sandbox has"
    where = _where(failed["frames"], stage, source)
    if failed["type"] == "TargetError":
        return failed["message"]
    kind, message = failed["type"], failed["message"]
    # A package that explains why it cannot be imported may raise an error without a name.
    said = re.search(r"No module named '([\w.]+)'", message)
    module = failed["module"] or (said and said[1])
    # `from PIL import _imaging` names the package as the module.
    part = re.search(r"cannot import name '(\w+)' from '([\w.]+)'", message)
    if part and f"{part[2]}.{part[1]}" in native:
        module = f"{part[2]}.{part[1]}"
    if module:
        if file := native.get(module) or _native_below(module, native):
            package = module.split(".")[0]
            return (
                f"{where}: {package} needs its native extension {file}, and a sandbox loads none: "
                f"use a package that is pure Python instead (or a version of {package} with a fallback)"
            )
        if module.split(".")[0] in _ABSENT:
            return f"{where}: {module} is not there: {_ABSENT[module.split('.')[0]]}"
        if kind == "ModuleNotFoundError":
            return (
                f"{where}: {message}: if it is one of your own, build in the folder that holds it, or name that with --chdir or "
                "--include; if it is a package, put it into --requirements, or activate the virtual environment that has it"
            )
    for kinds, words, advice in _REFUSED:
        if kind in kinds and re.search(words, message):
            return f"{where}: {': '.join(filter(None, (kind, message, advice)))}"
    advice = ""
    if name := _missed(failed, report):
        advice = f"\nThe app is imported when it is built: give it the variable with -e {name}=VALUE, or read it when a request comes."
    return f"{where}: {kind}{message and ': '}{message}{advice}\n\n{_traceback(failed['traceback'], stage, source)}"


def _where(frames, stage, source):
    """The innermost line that is the app's own, else the innermost of what it depends on."""
    for prefix in (APP, PACKAGES):
        for file, line in reversed(frames):
            if file.startswith(prefix):
                return f"{stage.local(file, source)}:{line}"
    return "the app cannot be imported"


def _missed(failed, report):
    """The variable of the environment for want of which it failed: by itself, or by a package that reads it for the app."""
    if failed["type"] == "KeyError" and any(file.endswith(("os.py", "<frozen os>")) for file, _ in failed["frames"]):
        return failed["message"].strip("'")
    own = [frame for frame in failed["frames"] if frame[0].startswith(APP)]
    for file, line, names in report.get("variables", ()):
        if own and [file, line] == list(own[-1]):
            return next((name for name in names if re.search(rf"\b{re.escape(name)}\b", failed["message"])), None)
    return None


def _native_below(module, native):
    return next((file for name, file in native.items() if name.startswith(f"{module}.")), None)


def _traceback(text, stage, source):
    """The app's frames, under the names that its files have here."""
    lines = [line for line in text.rstrip().split("\n")]
    return "\n".join(line.replace(f'"{APP}', f'"{os.path.relpath(source)}/').replace(f'"{PACKAGES}', '"') for line in lines)


def result(output, contents, files, stage, report, native, left_out):
    """What was made."""
    yield f"built {output}: {_mebibytes(len(contents))}, of which {_mebibytes(len(files))} are files"
    if len(contents) > _MODULE_SIZE:
        enough = f"module_size={(len(contents) >> 20) + 1}MiB"
        yield f"  too large    for a host with its usual module_size, {_MODULE_SIZE >> 20} MiB: wasgi serve --limit {enough}, or [limits] in wasgi.toml"
    yield f"  application  {report['application']}"
    packages = dependencies.distributions(stage.dependencies)
    yield f"  packages     {', '.join(packages) or 'none'}"
    count = sum(1 for _ in bundle.files(stage.app))
    yield f"  app's files  {count}, in the sandbox below {APP}"
    for prefix, folder in report.get("static", {}).items():
        yield f"  static       {prefix} is served by the host, from /{folder}"
    for path, outcome in report["warmed"]:
        yield f"  warmed       {path}: {outcome}"
    if report.get("data"):
        yield "  data         it keeps files in /data: grant it a directory (docs/deploying.md)"
    yield "  imports      wasgi:gateway, WASI 0.2 (what the host grants of it; none has to be granted)"
    imported = {module.split(".")[0] for module in report["modules"]}
    done_without = {module for module in native if module.split(".")[0] in imported}
    if done_without:
        yield f"  left out     native extensions, which the packages do without: {_by_package(done_without)}"
    if others := native.keys() - done_without:
        yield f"  left out     native extensions of packages that the app has not imported, and might miss: {_by_package(others)}"
    if left_out:
        kept = [path for path, kind in left_out if kind is Kind.LEFT_OUT]
        links = [path for path, kind in left_out if kind is Kind.LINK]
        if kept:
            yield f"  left out     {some(kept)} (databases, .env and .wasm files stay here, and what cannot be read; --include FILE adds one that is needed)"
        if links:
            yield f"  left out     {some(links)} (links out of the app's folder, or to nothing; --include adds what is needed)"


def notes(report, stage, source, environ, written):
    """What went well, but may not be meant."""
    found = list(report["notes"])
    for file, line, names in report["variables"]:
        missing = [name for name in names if name not in environ]
        if missing:
            found.append(
                f"{stage.local(file, source)}:{line}: {', '.join(missing)} is read from the environment while the app is imported, which "
                f"is now: the value is fixed in the file. Give it with -e {missing[0]}=VALUE, or read it when a request comes"
            )
    for file, line in report["copies"]:
        found.append(
            f"{stage.local(file, source)}:{line}: all of the environment is read while the app is imported, which is now: what it holds when the "
            "app is served is not seen there. Give what the import needs with -e NAME=VALUE, or read it when a request comes"
        )
    for file, line, what, static in report.get("kept", ()):
        folders = ", ".join(f'"{prefix}" = "{folder}"' for prefix, folder in static.items())
        found.append(
            f"{f'{stage.local(file, source)}:{line}: ' if file else ''}{what}: so the app serves {', '.join(static)} itself, as under gunicorn. If these files "
            f"are for everybody, let the host serve them: [static] with {folders} in the sidecar"
        )
    for file, line, what in report.get("places", ()):
        found.append(f"{stage.local(file, source)}:{line}: {what}" if file else what)
    for file in dict.fromkeys(file for file, _, _ in report["draws"]):
        lines = ", ".join(str(line) for other, line, _ in report["draws"] if other == file)
        found.append(
            f"{stage.local(file, source)}:{lines}: random bytes are drawn while the app is imported, which is now: they are in the file, "
            "and the same in every instance. Whoever has the file knows them: read a secret from the environment instead"
        )
    static = tuple(f"{folder.removeprefix('0/')}/" for folder in report.get("static", {}).values())
    begun = report.get("begun", ())
    if written := [path for path in written if not str(path).startswith(static) and str(path) not in begun]:
        found.append(
            f"{some(written)}: written while the app is imported, which is now: it is in the file, and cannot be changed there. What the "
            "app keeps belongs into /data (docs/deploying.md)"
        )
    for path, outcome in report["warmed"]:
        if not outcome[:1] in "123":
            found.append(f"--warm {path}: it was answered with {outcome}, so that little was learnt")
    for what in report["open"]:
        found.append(
            f"{what} is open when the imports are done, which is now: no instance has it, and one that uses it is ended. "
            "Open it when a request comes"
        )
    return [f"note: {note}" for note in found]


def _by_package(native):
    """`markupsafe, sqlalchemy (8)`"""
    counts = {}
    for module in native:
        package = module.split(".")[0]
        counts[package] = counts.get(package, 0) + 1
    return ", ".join(name if count == 1 else f"{name} ({count})" for name, count in sorted(counts.items()))


def some(paths):
    """The first few, and how many more there are."""
    paths = list(paths)
    names = [str(path) for path in paths[:5]]
    return ", ".join(names) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")


def _mebibytes(size):
    return f"{size / (1 << 20):.1f} MiB"
