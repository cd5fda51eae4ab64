"""From a target as gunicorn writes it to the application object."""

import ast
import importlib
import importlib.util
import inspect
import sys

from . import servers


class TargetError(Exception):
    """The target names nothing that can be served; says what to do."""


def load(module, expression):
    """The application that `module:expression` names; without expression, `application` or `app`, or what the module
    itself would serve."""
    found = _load(module, expression)
    if _is_asgi(found):
        raise TargetError(
            f"{module}{expression and ':'}{expression or ''} is an ASGI application, and this is a host for WSGI: a sandbox has no event "
            "loop. Name a WSGI application: Django's is in wsgi.py, beside asgi.py; those of Flask and Bottle are such, those of FastAPI, Starlette and "
            "Quart are not"
        )
    return found


def _is_asgi(app):
    """A coroutine that takes scope, receive and send."""
    called = app if inspect.isroutine(app) else type(app).__call__
    return inspect.iscoroutinefunction(called)


def _load(module, expression):
    loaded = _import(module)
    if expression is None:
        return _default(loaded, module)
    try:
        wanted = ast.parse(expression.strip(), mode="eval").body
    except SyntaxError:
        raise TargetError(
            f"{expression!r} is neither a name nor a call of a function: write module:name or module:create_app()"
        ) from None
    match wanted:
        case ast.Name(id=name):
            found = _attribute(loaded, module, name)
        case ast.Call(func=ast.Name(id=name)):
            found = _attribute(loaded, module, name)(*_arguments(wanted), **_keywords(wanted))
        case _:
            raise TargetError(
                f"{expression!r} is neither a name nor a call of a function: write module:name or module:create_app()"
            )
    if not callable(found):
        raise TargetError(
            f"{module}:{expression} is of type {type(found).__name__}, but an application is something that can be called"
        )
    if isinstance(wanted, ast.Name) and not _takes_two(found) and not _is_asgi(found):
        raise TargetError(
            f"{module}:{expression} cannot be called with environ and start_response: if it makes the application, write {module}:{expression}()"
        )
    return found


def _takes_two(function):
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        return False
    except ValueError:
        # It has none that could be asked for.
        pass
    return True


def _import(module):
    """Imports the module. One that ends in `serve_forever()` is there as far as it has come, its application too."""
    spec = None if module in sys.modules else importlib.util.find_spec(module)
    if spec is None or spec.loader is None:
        return importlib.import_module(module)
    loaded = sys.modules[module] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(loaded)
    except servers.Serving:
        pass
    except BaseException:
        sys.modules.pop(module, None)
        raise
    package, _, name = module.rpartition(".")
    if package:
        setattr(sys.modules[package], name, loaded)
    return sys.modules[module]


def _default(loaded, module):
    # What it has given to a server itself is what it serves: a name may come from `from bottle import *`.
    if servers.registered is not None:
        return servers.registered
    passed = None
    for name in ("application", "app"):
        found = getattr(loaded, name, None)
        if callable(found):
            if _takes_two(found) or _is_asgi(found):
                return found
            passed = passed or name
    _run_as_program(module)
    if servers.registered is not None:
        return servers.registered
    if passed:
        raise TargetError(
            f"{module}:{passed} cannot be called with environ and start_response, and {module} serves nothing when it is run: if it makes the "
            f"application, write {module}:{passed}()"
        )
    raise TargetError(
        f"{module} has neither `application` nor `app`, and serves nothing when it is run: name the application, as in {module}:name"
    )


def _run_as_program(module):
    """`python module.py`, or `python -m package`: what stands behind `if __name__ == "__main__"` may serve an application."""
    spec = importlib.util.find_spec(module)
    if spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(f"{module}.__main__")
    if spec is None or not hasattr(spec.loader, "get_code"):
        return
    code = spec.loader.get_code(spec.name)
    program = type(sys)("__main__")
    program.__file__, program.__spec__ = code.co_filename, spec
    # So that `from . import app` works in a package; a module at the top has an empty one.
    program.__package__ = spec.parent
    sys.modules["__main__"] = program
    try:
        exec(code, program.__dict__)
    except (servers.Serving, SystemExit):
        pass


def _attribute(loaded, module, name):
    try:
        return getattr(loaded, name)
    except AttributeError:
        names = sorted(name for name, value in vars(loaded).items() if callable(value) and not name.startswith("_"))
        raise TargetError(
            f"{module} has no {name!r}; what could be called there: {', '.join(names) or 'nothing'}"
        ) from None


def _arguments(call):
    return [_literal(argument) for argument in call.args]


def _keywords(call):
    return {keyword.arg: _literal(keyword.value) for keyword in call.keywords}


def _literal(node):
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise TargetError("the arguments of a factory must be literals: strings, numbers, lists…") from None
