"""The command line: `wasgi build`."""

import argparse
import os
import sys
import sysconfig
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

# Commands of the host's, which is called by the same name.
_HOSTS_OWN = ("serve", "check", "apps", "manage", "new", "selftest")


def main(arguments=None):
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in _HOSTS_OWN:
        _hand_over(arguments)
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


def _hand_over(arguments):
    """Runs the host, which a virtual environment's `wasgi` hides."""
    host = host_on_path(os.environ.get("PATH", ""), sys.argv[0])
    if host is None:
        sys.exit(
            f"error: `wasgi {arguments[0]}` is the host's, and there is none on the PATH: build it (`make host` in wasgi's source), and "
            "put its folder on the PATH: export PATH=…/target/debug:$PATH"
        )
    os.execv(host, [host, *arguments])


def host_on_path(path, own):
    """The first program `wasgi` that is not a script of this package."""
    scripts = {os.path.realpath(place) for place in (own, Path(sysconfig.get_path("scripts"), "wasgi"))}
    for folder in path.split(os.pathsep):
        found = os.path.realpath(os.path.join(folder, "wasgi"))
        if folder and found not in scripts and os.access(found, os.X_OK) and os.path.isfile(found) and not _is_script(found):
            return found
    return None


def _is_script(file):
    """Of another environment's."""
    with open(file, "rb") as file:
        return file.read(2) == b"#!"


def parser():
    whole = argparse.ArgumentParser(
        prog="wasgi",
        description="Sandboxed WSGI applications.",
        epilog=f"{', '.join(_HOSTS_OWN)}: commands of the host, which is looked for on the PATH",
    )
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
        metavar="FILE",
        help="write FILE, or into it if it is a folder or ends in / [default: NAME.wasm]",
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
        "--warm",
        action="append",
        default=[],
        metavar="PATH",
        help="let the app answer GET requests of this path once it is imported, so that a new instance knows the way: what that leaves in memory is "
        "in the file; may be given several times",
    )
    command.add_argument(
        "--watch", action="store_true", help="stay, and build again whenever something changes that the app is made of"
    )
    # For who starts it: what happens as JSON on standard output, and what the file that is there was made of.
    command.add_argument("--events", action="store_true", help=argparse.SUPPRESS)
    command.add_argument("--built", metavar="STATE", help=argparse.SUPPRESS)
    return whole
