"""The command line: `wasgi build`."""

import argparse
import sys
from pathlib import Path

from . import build, watch
from .errors import BuildError

_EXAMPLES = """\
TARGET is what gunicorn takes: module:name, module:create_app("argument"), or module alone, which means `application` or
`app` in it, or what it would serve when it is run. Without TARGET, the Django project whose manage.py is here.

examples:
  wasgi build                                     a Django project, in the folder of its manage.py
  wasgi build hello                               hello.py with `application` or `app`
  wasgi build shop.wsgi:application -o apps/      writes apps/shop.wasm, in one step: a running wasgi takes it at once
  wasgi build 'shop:create_app("config.prod")' --requirements requirements.txt
"""


def main(arguments=None):
    options = parser().parse_args(arguments)
    try:
        if options.watch:
            watch.run(options)
        else:
            build.run(options)
    except BuildError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def parser():
    whole = argparse.ArgumentParser(prog="wasgi", description="Sandboxed WSGI applications.")
    commands = whole.add_subparsers(metavar="COMMAND", required=True)
    command = commands.add_parser(
        "build",
        help="make one .wasm file of a WSGI application",
        description="Make one .wasm file of a WSGI application, its dependencies and its files.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("target", nargs="?", metavar="TARGET", help="the application (see below)")
    command.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="write FILE, or into it if it is a folder [default: NAME.wasm]",
    )
    command.add_argument(
        "-r",
        "--requirements",
        type=Path,
        metavar="FILE",
        help="install these dependencies for it [default: those of the active virtual environment]",
    )
    command.add_argument(
        "--include",
        action="append",
        default=[],
        type=Path,
        metavar="PATH",
        help="add a file or folder to the app's own; may be given several times",
    )
    command.add_argument(
        "--chdir", type=Path, default=Path(), metavar="FOLDER", help="the app's folder [default: the current one]"
    )
    command.add_argument(
        "-e",
        "--env",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an environment variable while the app is imported, which is when it is built; may be given several times",
    )
    command.add_argument(
        "--watch", action="store_true", help="stay, and build again whenever something changes that the app is made of"
    )
    # For who starts it: what happens as JSON on standard output, and what the file that is there was made of.
    command.add_argument("--events", action="store_true", help=argparse.SUPPRESS)
    command.add_argument("--built", metavar="STATE", help=argparse.SUPPRESS)
    return whole
