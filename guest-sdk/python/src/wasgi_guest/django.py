"""What a Django project needs beyond being imported: what it would import with the first request, and its static files."""

from . import caught

# Where they go if the project does not say.
_STATIC = "/0/staticfiles"


def finish(report):
    """Called once the project is imported."""
    from django.conf import settings

    if not settings.configured:
        return
    from django import template
    from django.core.signals import got_request_exception
    from django.urls import get_resolver

    get_resolver().url_patterns
    template.engines.all()
    caught.watch(got_request_exception)
    report["data"] = any(_is_data(database.get("NAME")) for database in settings.DATABASES.values()) or _is_data(
        settings.MEDIA_ROOT
    )
    if "django.contrib.staticfiles" in settings.INSTALLED_APPS:
        report["static"] = _collect(settings)


def _is_data(path):
    return str(path).startswith("/data/")


def _collect(settings):
    """`manage.py collectstatic`; URL prefix → folder of the archive."""
    from django.core.management import call_command

    if not str(settings.STATIC_ROOT or "").startswith("/0/"):
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
