"""Servers that programs start themselves: here they only say which application they would serve."""

import functools
import inspect

from . import imports

# What the first of them was given, and what was asked for besides.
registered = None
notes = []


class Serving(BaseException):
    """`serve_forever()` was reached: it never returns, and nothing behind it belongs to the start."""


class _Server:
    """What `make_server` returns."""

    def __init__(self, host, port, app):
        self.server_address = self.server_name, self.server_port = host, port
        self.application = app

    def set_app(self, app):
        self.application = app

    def get_app(self):
        return self.application

    def serve_forever(self, poll_interval=0.5):
        _register(self.application)
        notes.append(
            f"serve_forever() on {self.server_name or '*'}:{self.server_port}: where the app is served is the host's business"
        )
        raise Serving

    def handle_request(self):
        self.serve_forever()

    def server_close(self):
        pass

    shutdown = server_close

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        pass


def _register(app):
    global registered
    if registered is None:
        registered = app


def _make_server(host, port, app, server_class=None, handler_class=None):
    return _Server(host, port, app)


def _run(handler, application):
    _register(application)
    raise Serving


def _run_simple(hostname, port, application, *_, **__):
    _Server(hostname, port, application).serve_forever()


def _serve(app, *_, host="", port="its usual port", **__):
    _Server(host, port, app).serve_forever()


def _run_once(module):
    """Bottle's `run()` without the reloader, which would start the program again in another process."""
    run = getattr(module, "run", None)
    signature = inspect.signature(run) if callable(run) else None
    if signature is None or "reloader" not in signature.parameters:
        # Another module of that name.
        return

    @functools.wraps(run)
    def run_once(*arguments, **keywords):
        bound = signature.bind(*arguments, **keywords)
        bound.arguments["reloader"] = False
        return run(*bound.args, **bound.kwargs)

    module.run = run_once


# Of packages. Flask's `run()` is Werkzeug's.
_OF_PACKAGES = {
    "bottle": _run_once,
    "waitress": lambda module: setattr(module, "serve", _serve),
    "werkzeug.serving": lambda module: setattr(module, "run_simple", _run_simple),
}


def install():
    """Puts them in place of the standard library's, and of packages'."""
    from wsgiref import handlers, simple_server

    simple_server.make_server = _make_server
    # CGIHandler().run(app): it answers one request and ends.
    handlers.BaseCGIHandler.run = _run
    for name, replace in _OF_PACKAGES.items():
        imports.after(name, replace)
