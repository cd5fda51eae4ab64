"""What a Django project needs beyond being imported: what it would import with the first request, its static files, and a place for
its database."""

import ast
import os
import sys

from . import caught, databases, world

# Where they go if the project does not say.
_STATIC = f"{world.APP}/staticfiles"


def finish(report):
    """Called once the project is imported."""
    from django.conf import settings

    if not settings.configured:
        return
    from django import template
    from django.core.signals import got_request_exception
    from django.db import connections
    from django.urls import get_resolver

    get_resolver().url_patterns
    template.engines.all()
    connections.close_all()
    caught.watch(got_request_exception)
    report["places"] = _move_databases(settings) + _read_only_media(settings)
    report["data"] = any(_is_data(database.get("NAME")) for database in settings.DATABASES.values()) or _is_data(
        settings.MEDIA_ROOT
    )
    if "django.contrib.staticfiles" in settings.INSTALLED_APPS:
        report["static"] = _collect(settings)


def _is_data(path):
    return world.is_in(world.DATA, str(path))


def _move_databases(settings):
    """`startproject` has the database beside the code, where nothing can be written when the project is served: it is in /data then.
    What was done, with the line of the settings that says otherwise."""
    notes = []
    for database in settings.DATABASES.values():
        name = str(database.get("NAME") or "")
        if "sqlite" not in database.get("ENGINE", ""):
            continue
        full, kept = os.path.abspath(name), databases.place(name)
        if kept is None or full in databases.asked:
            # What an import has connected to is known there.
            continue
        notes.append([*_line_of(settings, "DATABASES", "NAME"), databases.told(full)])
        if not os.path.exists(full):
            database["NAME"] = kept
    return notes


def _read_only_media(settings):
    place = os.path.abspath(settings.MEDIA_ROOT) if settings.MEDIA_ROOT else ""
    if not world.is_in(world.APP, place):
        return []
    what = f"MEDIA_ROOT is in the app's folder, where nothing can be written when it is served: say {world.DATA}/{os.path.basename(place)}"
    return [[*_line_of(settings, "MEDIA_ROOT"), what]]


def _line_of(settings, name, key=None):
    """Where a setting is given its value, or a key in it: file and line."""
    value = getattr(settings, name)
    # Settings may be a package that imports one module from another: it is where most of them end.
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None) or ""
        if not world.is_in(world.APP, file) or getattr(module, name, None) is not value:
            continue
        for node in ast.walk(_parsed(file)):
            match node:
                case ast.Assign(targets=[ast.Name(id=found)], value=assigned) if found == name:
                    keys = [part for part in ast.walk(assigned) if isinstance(part, ast.Constant) and part.value == key]
                    return file, (keys[0] if key and keys else node).lineno
    return getattr(sys.modules.get(settings.SETTINGS_MODULE), "__file__", f"{world.APP}/settings.py"), 1


def _parsed(file):
    with open(file, "rb") as source:
        return ast.parse(source.read())


def _collect(settings):
    """`manage.py collectstatic`; URL prefix → folder of the archive."""
    from django.core.management import call_command

    if not world.is_in(world.APP, str(settings.STATIC_ROOT or "")):
        settings.STATIC_ROOT = _STATIC
    call_command("collectstatic", interactive=False, verbosity=0)
    prefix = settings.STATIC_URL
    _forget_place(settings)
    if not prefix.startswith("/"):
        # Files of another server.
        return {}
    return {prefix: str(settings.STATIC_ROOT).strip("/")}


def _forget_place(settings):
    """Settings and storages keep addresses that begin with the place where the app is mounted: nobody knows it yet."""
    from django.contrib.staticfiles import storage
    from django.core.files.storage import storages
    from django.utils.functional import empty

    for name in ("MEDIA_URL", "STATIC_URL"):
        vars(settings).pop(name, None)
    storages._storages.clear()
    storage.staticfiles_storage._wrapped = empty
