"""What a framework does once only, done when the app is built: a fresh instance would do it in its every request.

Nothing of the app's own code runs for it. Flask and what it rests on are practised with an application of our own, so that the interpreter has
seen their code; and the app's templates are compiled, which is a translation of files. Where anything on the way is not Flask's own, which
could do something else than that, it is left to the instances."""

import contextlib
import sys

from . import flask as known

# Jinja keeps so many; more would only push each other out.
_TEMPLATES_MAX = 300

_PAGE = """\
{% extends "base.html" %}{% from "macros.html" import row %}
{% block content %}{% for each in rows if each.name %}{{ loop.index }}{{ row(each) }}{% else %}none{% endfor %}
{{ url_for("page", name="a") }} {{ rows | length }} {{ "<&>" }} {{ missing | default("") }}{% set x = 1 %}{% include "part.html" %}{% endblock %}
"""
_TEMPLATES = {
    "base.html": "<title>{% block title %}x{% endblock %}</title>{% block content %}{% endblock %}",
    "macros.html": "{% macro row(each) %}<li>{{ each.name }}{{ each['number'] }}{% endmacro %}",
    "part.html": "{{ x }}",
    "page.html": _PAGE,
}


def flask(apps):
    """Called once the app is imported, with all its applications."""
    module = sys.modules["flask"]
    if _is_as_published(module):
        _requests(module)
    for app in apps:
        _templates(module, app)


def _is_as_published(module):
    """Nobody has put something of his own into Flask, who would take our requests for the app's."""
    functions = (getattr(module.Flask, name, None) for name in known.ON_THE_WAY)
    if not all(function is None or known.is_flasks(function) for function in functions):
        return False
    classes = (module.Flask.request_class, module.Flask.response_class, type(module.Flask.session_interface))
    if not all(each.__module__.startswith("flask.") for each in classes):
        return False
    signals = (signal for signal in vars(module.signals).values() if hasattr(signal, "receivers_for"))
    return all(_is_ours(receiver) for signal in signals for receiver in signal.receivers_for(None))


def _is_ours(receiver):
    return str(getattr(receiver, "__module__", "")).startswith("wasgi_guest.")


def _requests(module):
    """Through the ways that most requests take."""
    from jinja2 import DictLoader

    from . import warm

    app = module.Flask("wasgi_guest", static_folder=None)
    app.jinja_loader = DictLoader(_TEMPLATES)
    app.secret_key = "nobody's"

    @app.get("/text")
    def text():
        return "text"

    @app.get("/json/<int:number>")
    def json(number):
        return module.jsonify(number=number, query=module.request.args.get("x"), who=module.request.headers.get("User-Agent"))

    @app.get("/page/<name>")
    def page(name):
        rows = [{"name": f"<{number}>", "number": number} for number in range(8)]
        return module.render_template("page.html", rows=rows, name=name)

    @app.get("/session")
    def session():
        module.session["x"] = 1
        return module.redirect(module.url_for("text"))

    warm.app(app, ["/text", "/json/1?x=y", "/page/a", "/session", "/missing"])


def _templates(module, app):
    """Compiles those that lie in files."""
    from jinja2 import FileSystemLoader, TemplateError

    loaders = (scaffold.jinja_loader for scaffold in (app, *app.iter_blueprints()))
    makers = ("create_jinja_environment", "select_jinja_autoescape", "create_global_jinja_loader")
    if not all(loader is None or type(loader) is FileSystemLoader for loader in loaders):
        return
    if not all(known.is_flasks(getattr(type(app), name)) and name not in vars(app) for name in makers):
        return
    for name in sorted(app.jinja_env.list_templates())[:_TEMPLATES_MAX]:
        with contextlib.suppress(TemplateError, OSError, UnicodeError):
            app.jinja_env.get_template(name)
