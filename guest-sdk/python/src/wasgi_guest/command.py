"""`wasgi manage FILE ARGS`: a command of the app's own, inside the same sandbox."""

import getpass
import os
import sys
import traceback

from wit_world.imports import environment

from . import flask


def run(app):
    """Runs what the arguments ask for; whether it went well."""
    try:
        # sys.argv is that of the build. The first is the app's name.
        _manage(app, environment.get_arguments()[1:])
    except SystemExit as end:
        return _exit(end.code)
    except BaseException:
        traceback.print_exc()
        return False
    return True


class NoUser(OSError, KeyError):
    """What Python says where there are no users, and what it said before 3.13, which Django 4.2 knows."""


def _user():
    try:
        return _getuser()
    except OSError as error:
        raise NoUser(*error.args) from None


_getuser = getpass.getuser


def _manage(app, arguments):
    getpass.getuser = _user
    if "DJANGO_SETTINGS_MODULE" in os.environ or "django.conf" in sys.modules:
        from django.core.management import execute_from_command_line

        execute_from_command_line(["manage.py", *arguments])
        return
    if arguments[:1] == ["-m"] and len(arguments) > 1:
        import runpy

        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        return
    if "flask" in sys.modules and (found := flask.first(app)):
        from flask.cli import FlaskGroup

        # The app that is served, not another one of its factory's.
        FlaskGroup(create_app=lambda: found).main(arguments, prog_name="wasgi manage FILE")
        return
    raise SystemExit(
        "this app is no Django project and none of Flask's, so it has no commands of its own; to run one of its modules: -m MODULE [ARGUMENTS]"
    )


def _exit(code):
    if code is None or code == 0:
        return True
    if not isinstance(code, int):
        print(code, file=sys.stderr)
    return False
