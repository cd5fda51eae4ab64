"""Packages are imported by the app or not at all: what is put in place of something of theirs is put there when they are."""

import importlib.machinery
import sys

_wanted = {}


class _Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name not in _wanted:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module):
                execute(module)
                _wanted[name](module)

            spec.loader.exec_module = exec_module
        return spec


def after(name, function):
    """Calls `function` with the module as soon as it is imported."""
    _wanted[name] = function
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)
