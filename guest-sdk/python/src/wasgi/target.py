"""TARGET on the command line: which module, which expression in it; and what a Django project says about itself."""

import ast
import os
import re
from dataclasses import dataclass
from pathlib import Path

from .errors import BuildError


# Modules and packages that are called so in every project.
_SAY_NOTHING = {"__init__", "app", "application", "asgi", "config", "main", "project", "server", "src", "web", "wsgi"}


@dataclass(frozen=True)
class Target:
    """What is served."""

    module: str
    # A name or a call, as gunicorn takes it; None means the usual names.
    expression: str | None
    # The settings of a Django project.
    settings: str | None = None

    def name(self, folder):
        """What the app is called where nobody says otherwise: as its module, or as its folder where that says nothing."""
        parts = [part for part in self.module.split(".") if part not in _SAY_NOTHING]
        if parts:
            return parts[-1]
        name = re.sub(r"[^a-z0-9._]+", "-", folder.name.lower()).strip("-.")
        return name or self.module.split(".")[0]


def parse(text, folder):
    """The target, in the app's folder."""
    if text is None:
        return _django(folder)
    module, colon, expression = text.partition(":")
    # A file's name, as people have it from `python hello.py`.
    if module.endswith(".py"):
        module = module.removesuffix(".py").removeprefix("./").replace("/", ".")
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", module):
        raise BuildError(f"{text!r} is no target: write module:name, for instance hello:app")
    return Target(module, expression if colon else None, _settings(_file(folder, module)) or _settings(folder / "manage.py"))


def _django(folder):
    manage = folder / "manage.py"
    if not manage.is_file():
        raise BuildError(
            "there is no manage.py here, so say what to serve: wasgi build module:name (or go to the folder of a Django project)"
        )
    settings = _settings(manage)
    if settings is None:
        raise BuildError(
            f"{os.path.relpath(manage)} does not set DJANGO_SETTINGS_MODULE: say what to serve, for instance mysite.wsgi:application"
        )
    file = _file(folder, settings)
    application = _assigned(file, "WSGI_APPLICATION") if file.is_file() else None
    application = application or _beside(folder, settings)
    module, _, name = application.rpartition(".")
    # What serves may have other settings than what is run by hand.
    return Target(module, name, _settings(_file(folder, module)) or settings)


def _beside(folder, settings):
    """The application of the next `wsgi.py` up from the settings, which may be a package of several files."""
    package = settings.rpartition(".")[0]
    while package and not _file(folder, f"{package}.wsgi").is_file():
        package = package.rpartition(".")[0]
    return f"{package or settings.partition('.')[0]}.wsgi.application"


def _file(folder, module):
    return folder / f"{module.replace('.', '/')}.py"


def _settings(file):
    """The second argument of `os.environ.setdefault("DJANGO_SETTINGS_MODULE", …)`."""
    if not file.is_file():
        return None
    for node in ast.walk(_parse(file)):
        match node:
            case ast.Call(args=[ast.Constant(value="DJANGO_SETTINGS_MODULE"), ast.Constant(value=str(settings))]):
                return settings
    return None


def _assigned(file, name):
    for node in _parse(file).body:
        match node:
            case ast.Assign(targets=[ast.Name(id=found)], value=ast.Constant(value=str(value))) if found == name:
                return value
    return None


def _parse(file: Path):
    try:
        return ast.parse(file.read_bytes(), filename=str(file))
    except SyntaxError as error:
        raise BuildError(f"{os.path.relpath(file)}:{error.lineno}: {error.msg}") from None
