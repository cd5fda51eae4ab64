"""What a Flask application says of itself: its static files, which the host serves without waking it; and databases at places where
nothing can be written."""

import ast
import inspect
import os
import re
import sys
import textwrap

from . import caught

# Servers around an application that change nothing of what is at which path.
_TRANSPARENT = {"werkzeug.middleware.proxy_fix.ProxyFix"}
# A URL of SQLAlchemy's, or a file as Flask's tutorial has it.
_BESIDE_THE_CODE = re.compile(r"(sqlite(?:\+\w+)?:///)(?!:memory:|file:|/data/)\S+|/0/.+\.(?:db|sqlite3?)")

_DISPATCHER = "werkzeug.middleware.dispatcher.DispatcherMiddleware"


def finish(app, report):
    """Called once the app is imported."""
    flask = sys.modules["flask"]
    caught.watch(flask.got_request_exception)
    mounts = set()
    found = [(place, inner) for place, inner in _applications(app, "", mounts) if isinstance(inner, flask.Flask)]
    static, hooks = {}, []
    for place, inner in found:
        own = {f"{place}{prefix}": folder for prefix, folder in _static(inner).items()}
        own = {prefix: folder for prefix, folder in own.items() if not _is_anothers(prefix, place, mounts)}
        static |= own
        hooks += _hooks(inner) if own else []
    if static:
        report["static"] = static
        report["hooks"] = sorted(hooks)
    report["places"] = report.get("places", []) + [note for _, inner in found for note in _databases(inner)]


def _applications(app, place, mounts):
    """The applications behind what is served, each with its place, as far as it is known who stands between."""
    kind = f"{type(app).__module__}.{type(app).__qualname__}"
    if kind in _TRANSPARENT:
        yield from _applications(app.app, place, mounts)
    elif kind == _DISPATCHER:
        mounts.update(f"{place}{mount}" for mount in app.mounts)
        yield from _applications(app.app, place, mounts)
        for mount, mounted in app.mounts.items():
            yield from _applications(mounted, f"{place}{mount}", mounts)
    elif isinstance(app, sys.modules["flask"].Flask) and "wsgi_app" in vars(app):
        # `app.wsgi_app = ProxyFix(app.wsgi_app)`
        yield from _applications(app.wsgi_app, place, mounts)
    else:
        yield place, getattr(app, "__self__", app) if getattr(app, "__name__", None) == "wsgi_app" else app


def _is_anothers(prefix, place, mounts):
    """Whether another application is mounted at what would be this one's."""
    return any(len(mount) > len(place) and f"{prefix}/".startswith(f"{mount}/") for mount in mounts)


def _static(app):
    """URL prefix → folder of the archive, of the application and its blueprints."""
    found = {}
    rules = list(app.url_map.iter_rules())
    for rule in rules:
        name, dot, static = rule.endpoint.rpartition(".")
        owner = app.blueprints.get(name) if dot else app
        prefix, _, rest = rule.rule.partition("<")
        if static != "static" or owner is None or rest != "path:filename>" or prefix == "/" or rule.subdomain or rule.host:
            continue
        # Who serves them in a way of his own may have a reason, such as a login.
        if not (_is_flasks(app.view_functions[rule.endpoint]) and _is_flasks(type(owner).send_static_file)):
            continue
        if any(other is not rule and other.rule.startswith(prefix) for other in rules):
            continue
        folder = os.path.normpath(owner.static_folder)
        if folder.startswith(("/0/", "/1/")) and any(names for _, _, names in os.walk(folder)):
            found[prefix] = folder.strip("/")
    return found


def _is_flasks(function):
    code = getattr(function, "__code__", None)
    return code is not None and code.co_filename.startswith(os.path.dirname(sys.modules["flask"].__file__) + "/")


def _hooks(app):
    """The app's own functions that would have had a say before a static file was sent; what packages do is not known here."""
    for function in app.before_request_funcs.get(None, ()):
        code = getattr(function, "__code__", None)
        if code is not None and code.co_filename.startswith("/0/") and _may_refuse(function):
            yield [code.co_filename, code.co_firstlineno, function.__name__]


def _may_refuse(function):
    """Whether it may answer in place of the file: it returns something, raises, or aborts."""
    try:
        source = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError):
        return True
    for node in ast.walk(source):
        match node:
            case ast.Return(value=value) if value is not None:
                return True
            case ast.Raise() | ast.Call(func=ast.Name(id="abort") | ast.Attribute(attr="abort")):
                return True
    return False


def _databases(app):
    """Those of SQLite that are beside the code, or in Flask's instance folder there."""
    for name, value in app.config.items():
        found = isinstance(value, str) and _BESIDE_THE_CODE.fullmatch(value)
        if found:
            place = f"{'sqlite:///' if found[1] else ''}/data/{os.path.basename(value)}"
            yield None, 0, (
                f"{name} is {value}, in the app's folder, where nothing can be written when it is served: a database is kept in /data, as {place} "
                "(docs/guide-python.md)"
            )
