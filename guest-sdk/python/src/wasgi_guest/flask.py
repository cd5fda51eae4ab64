"""What a Flask application says of itself: its static files, which the host serves without waking it; and its databases."""

import ast
import functools
import inspect
import os
import re
import sys
import textwrap
import types

from . import caught, world

# Servers around an application that change nothing of what is at which path.
_TRANSPARENT = {"werkzeug.middleware.proxy_fix.ProxyFix"}
# A URL of SQLAlchemy's, or a file as Flask's tutorial has it.
_DATABASE = re.compile(r"sqlite(?:\+\w+)?:///(?!:memory:|file:)([^?]+)(?:\?.*)?|/.+\.(?:db|sqlite3?)")

# What a request for a static file passes in Flask. Where one of them is somebody else's, it may refuse the request.
ON_THE_WAY = (
    "__call__",
    "wsgi_app",
    "request_context",
    "create_url_adapter",
    "full_dispatch_request",
    "preprocess_request",
    "dispatch_request",
    "raise_routing_exception",
    "ensure_sync",
    "finalize_request",
    "make_response",
    "process_response",
    "send_static_file",
)
# Hooks of packages that let every GET request pass, by their code: a name could be another's.
_HARMLESS = {(f"{world.PACKAGES}/flask_wtf/csrf.py", "CSRFProtect.init_app.<locals>.csrf_protect")}
# And this one, as docs/guide-python.md has it, in the way that ast.unparse writes it.
_READS_SECRET = re.compile(
    r"(\w+)\.secret_key = (?:\1\.secret_key or )?os\.(?:environ\['\w+'\]|environ\.get\('\w+'\)|getenv\('\w+'\))(?: or os\.urandom\(\d+\))?"
)

_DISPATCHER = "werkzeug.middleware.dispatcher.DispatcherMiddleware"


def finish(app, report):
    """Called once the app is imported. Returns the applications that it found, and the databases that their settings name."""
    flask = sys.modules["flask"]
    caught.watch(flask.got_request_exception)
    caught.watch_handlers(flask.Flask)
    mounts = set()
    found = list(_applications(app, "", mounts))
    static, kept = {}, {}
    for place, inner, around in found:
        for prefix, folder, why in _static(inner, around):
            prefix = f"{place}{prefix}"
            if _is_anothers(prefix, place, mounts):
                continue
            if why is None:
                static[prefix] = folder
            else:
                kept.setdefault(why, {})[prefix] = folder
    # What one of them keeps to itself is not given away by another.
    if static := {prefix: folder for prefix, folder in static.items() if not any(prefix in own for own in kept.values())}:
        report["static"] = static
    report["kept"] = [[*why, own] for why, own in kept.items()]
    once = list({id(inner): inner for _, inner, _ in found}.values())
    return once, [database for inner in once for database in _databases(inner)]


def first(app):
    """The application of Flask's behind what is served, if there is one."""
    return next((inner for _, inner, _ in _applications(app, "", set())), None)


def _applications(app, place, mounts, around=None):
    """Flask's applications behind what is served, each with its place, and who stands before it of whom it is not known what he does."""
    flask = sys.modules["flask"].Flask
    kind = f"{type(app).__module__}.{type(app).__qualname__}"
    if kind in _TRANSPARENT:
        yield from _applications(app.app, place, mounts, around)
    elif kind == _DISPATCHER:
        mounts.update(f"{place}{mount}" for mount in app.mounts)
        yield from _applications(app.app, place, mounts, around)
        for mount, mounted in app.mounts.items():
            yield from _applications(mounted, f"{place}{mount}", mounts, around)
    elif isinstance(app, flask) and "wsgi_app" in vars(app):
        # `app.wsgi_app = ProxyFix(app.wsgi_app)`
        behind = list(_applications(app.wsgi_app, place, mounts, around))
        yield from behind
        if not any(inner is app for _, inner, _ in behind):
            yield place, app, around or _called(app.wsgi_app)
    elif isinstance(inner := _owner_of(app), flask):
        yield place, inner, around
    else:
        for value in list(getattr(app, "__dict__", {}).values()):
            if isinstance(inner := _owner_of(value), flask):
                yield place, inner, around or _called(app)


def _owner_of(app):
    """An application, also where it is its `wsgi_app` that is served."""
    return getattr(app, "__self__", app) if getattr(app, "__name__", None) == "wsgi_app" else app


def _called(thing):
    thing = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{thing.__module__}.{thing.__qualname__}"


def _is_anothers(prefix, place, mounts):
    """Whether another application is mounted at what would be this one's."""
    return any(len(mount) > len(place) and f"{prefix}/".startswith(f"{mount}/") for mount in mounts)


def _static(app, around):
    """URL prefix and folder of the archive, of the application and its blueprints; and why the app has to serve it itself, if so."""
    rules = list(app.url_map.iter_rules())
    for rule in rules:
        name, dot, static = rule.endpoint.rpartition(".")
        owner = app.blueprints.get(name) if dot else app
        prefix, _, rest = rule.rule.partition("<")
        if static != "static" or owner is None or rest != "path:filename>" or prefix == "/" or rule.subdomain or rule.host:
            continue
        if owner.static_folder is None or any(other is not rule and other.rule.startswith(prefix) for other in rules):
            continue
        folder = os.path.normpath(owner.static_folder)
        if world.is_own(folder) and any(names for _, _, names in os.walk(folder)):
            has_others = any(other.subdomain or other.host for other in rules)
            why = (None, 0, "the app has rules for single subdomains or hosts") if has_others else _refusal(app, owner, rule.endpoint, around)
            yield prefix, folder.strip("/"), why


def _refusal(app, owner, endpoint, around):
    """File, line and description of what may refuse such a file to somebody, such as a login: whatever is not known to let all of them
    pass. The host, which asks nobody, would give it away."""
    if around is not None:
        return None, 0, f"{around} is around the app"
    if not is_flasks(view := app.view_functions[endpoint]):
        return _described(view, "is the app's own view of them")
    for object, names in ((app, ON_THE_WAY), (owner, ("send_static_file",))):
        for name in names:
            function = getattr(type(object), name, None)
            if name != "wsgi_app" and name in vars(object):
                return _described(vars(object)[name], f"is {name} of the app")
            if function is not None and not is_flasks(function):
                return _described(function, "is not Flask's")
    # As Flask has it: the app's, and those of the blueprints that the endpoint is in.
    parts = endpoint.split(".")[:-1]
    scopes = [None, *(".".join(parts[: number + 1]) for number in range(len(parts)))]
    for functions in (app.url_value_preprocessors, app.before_request_funcs):
        for function in (function for scope in scopes for function in functions.get(scope, ())):
            if not _is_harmless(function, app):
                return _described(function, "is called before each request, and may refuse it")
    for name in ("appcontext_pushed", "request_started"):
        if getattr(getattr(sys.modules["flask"], name, None), "receivers", None):
            return None, 0, f"the signal {name} has receivers, which may refuse a request"
    return None


def is_flasks(function):
    code = getattr(function, "__code__", None)
    return code is not None and code.co_filename.startswith(os.path.dirname(sys.modules["flask"].__file__) + "/")


def _is_harmless(function, app):
    code = getattr(function, "__code__", None)
    if code is None:
        return False
    return (code.co_filename, code.co_qualname) in _HARMLESS or _only_reads_secret(function, app)


def _only_reads_secret(function, app):
    """Whether that is all it does, and its names mean what they seem to."""
    if type(function) is not types.FunctionType or function.__globals__.get("os") is not os:
        return False
    try:
        [found] = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    except (OSError, SyntaxError, ValueError):
        return False
    if not isinstance(found, ast.FunctionDef) or function.__code__.co_argcount or function.__closure__:
        return False
    told = [_READS_SECRET.fullmatch(ast.unparse(statement)) for statement in found.body]
    return all(match and function.__globals__.get(match[1]) is app for match in told)


def _described(function, what):
    """A function behind what is around it, with its line if it is the app's."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    code = getattr(function, "__code__", None)
    if code is not None and world.is_in(world.APP, code.co_filename):
        return code.co_filename, code.co_firstlineno, f"{function.__qualname__}() {what}"
    return None, 0, f"{_called(function)} {what}"


def _databases(app):
    """Those of SQLite, by their paths."""
    is_sqlalchemys = "sqlalchemy" in app.extensions
    for value in app.config.values():
        if isinstance(value, str) and (found := _DATABASE.fullmatch(value)):
            if found[1] is None:
                yield value
            elif not is_sqlalchemys:
                # That has engines, which know where theirs are.
                yield found[1]
