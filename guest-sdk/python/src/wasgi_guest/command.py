"""`wasgi manage FILE ARGS`: a command of the app's own, inside the same sandbox."""

import os
import sys
import traceback

from wit_world.imports import environment


def run():
    """Runs what the arguments ask for; whether it went well."""
    try:
        # sys.argv is that of the build. The first is the app's name.
        _manage(environment.get_arguments()[1:])
    except SystemExit as end:
        return _exit(end.code)
    except BaseException:
        traceback.print_exc()
        return False
    return True


def _manage(arguments):
    if "DJANGO_SETTINGS_MODULE" in os.environ or "django.conf" in sys.modules:
        from django.core.management import execute_from_command_line

        execute_from_command_line(["manage.py", *arguments])
        return
    if arguments[:1] == ["-m"] and len(arguments) > 1:
        import runpy

        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        return
    raise SystemExit(
        "this app is no Django project, so it has no commands of its own; to run one of its modules: -m MODULE [ARGUMENTS]"
    )


def _exit(code):
    if code is None or code == 0:
        return True
    if not isinstance(code, int):
        print(code, file=sys.stderr)
    return False
