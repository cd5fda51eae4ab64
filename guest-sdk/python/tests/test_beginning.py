"""What the build leaves behind for each instance to begin with: python3 -m unittest discover guest-sdk/python/tests"""

import gc
import importlib
import io
import random
import struct
import sys
import types
import unittest
import weakref
from unittest import mock

import test_frameworks
from test_guest import run
from wasgi_guest import practice


class Settled(unittest.TestCase):
    def settle(self):
        """What is made immortal, of what the collector knows."""
        given = []
        native = types.SimpleNamespace(settle=lambda objects: given.extend(objects) or len(given), fill=lambda: 0)
        with mock.patch.dict(sys.modules, {"_wasgi_native": native}):
            sys.modules.pop("wasgi_guest.settled", None)
            settled = importlib.import_module("wasgi_guest.settled")
            self.assertEqual(settled.settle(), len(given))
        self.assertGreater(gc.get_freeze_count(), 0)
        gc.unfreeze()
        return {id(each) for each in given}

    def test_what_stays_is_not_counted_with_the_code_and_its_constants(self):
        names = run("class Shop:\n    def sell(self): return ('a constant', 5000000)\n")
        sell = names["Shop"].sell
        made = [names["Shop"], sell, sell.__code__, sell.__code__.co_consts, *sell.__code__.co_consts[1:], names["Shop"](), [1], {"a": [2]}, sys.modules[__name__]]
        # Tuples of constants are not the collector's any more once it has seen them.
        gc.collect()
        settled = self.settle()
        for each in made:
            self.assertIn(id(each), settled, each)

    def test_what_somebody_waits_for_the_end_of_is_counted(self):
        class Ends:
            def __del__(self):
                pass

        class Thing:
            pass

        watched, listed, free = Thing(), Thing(), Thing()
        weakly = weakref.WeakValueDictionary(listed=listed)
        weakref.finalize(watched, print).atexit = False
        reference = weakref.ref(free)
        generator = (number for number in [1])
        counted = [Ends(), watched, listed, generator, io.BytesIO(), sys._getframe()]
        settled = self.settle()
        for each in counted:
            self.assertNotIn(id(each), settled, each)
        self.assertIn(id(free), settled)
        self.assertTrue(reference() is free and weakly)


class Chance(unittest.TestCase):
    """With a part that is not Python's in Python: it finds the state, or does not."""

    def setUp(self):
        self.scattered, self.real = [], random.seed
        self.addCleanup(setattr, random, "seed", self.real)

    def chance(self, is_known=True):
        def state(generator):
            words = generator.getstate()[1]
            return struct.pack("=624Ii", *words) if is_known else bytes(2500)

        def scatter(generator, key):
            self.scattered.append(len(key))
            generator.seed(key)

        with mock.patch.dict(sys.modules, {"_wasgi_native": types.SimpleNamespace(state=state, scatter=scatter)}):
            sys.modules.pop("wasgi_guest.chance", None)
            return importlib.import_module("wasgi_guest.chance")

    def test_the_first_seed_is_the_systems_and_the_function_is_pythons_again(self):
        for is_known in (True, False):
            chance = self.chance(is_known)
            for seed in (lambda: random.seed(), lambda: random.seed(None)):
                numbers = set()
                for _ in range(3):
                    random.seed = self.real
                    random.seed(1)
                    random.gauss()
                    chance.install()
                    # Nothing is left of what the build has drawn.
                    self.assertIsNone(random._inst.gauss_next)
                    seed()
                    self.assertIs(random.seed, self.real)
                    numbers.add(random.random())
                self.assertEqual(len(numbers), 3)
            self.assertEqual(set(self.scattered), {32} if is_known else set())
            chance.install()
            random.seed(1)
            first = random.random()
            random.seed(1)
            self.assertEqual(random.random(), first)
            self.scattered.clear()


class Practised(unittest.TestCase):
    """With a framework that has what is asked of Flask, and a template engine."""

    app = test_frameworks.Flasks.app

    def setUp(self):
        test_frameworks.Flasks.setUp(self)

        class Loader:
            pass

        class TemplateError(Exception):
            pass

        self.loader, self.error = Loader, TemplateError
        names = run(
            "class Request: pass\n"
            "def create_jinja_environment(self): pass\n"
            "def select_jinja_autoescape(self, name): pass\n"
            "def create_global_jinja_loader(self): pass\n",
            "/1/flask/wrappers.py",
        )
        request = type("Request", (), {"__module__": "flask.wrappers"})
        self.flask.request_class = self.flask.response_class = request
        self.flask.session_interface = request()
        for name in ("create_jinja_environment", "select_jinja_autoescape", "create_global_jinja_loader"):
            setattr(self.flask, name, names[name])
        self.receivers = []
        self.module.signals = types.SimpleNamespace(started=types.SimpleNamespace(receivers_for=lambda sender: self.receivers))
        jinja = types.SimpleNamespace(FileSystemLoader=Loader, TemplateError=TemplateError)
        patch = mock.patch.dict(sys.modules, {"jinja2": jinja})
        patch.start()
        self.addCleanup(patch.stop)

    def is_as_published(self):
        return practice._is_as_published(self.module)

    def test_nobody_elses_code_is_practised_with(self):
        self.assertTrue(self.is_as_published())
        own = run("def own(*args): pass\n")["own"]
        for name in ("__call__", "wsgi_app", "full_dispatch_request"):
            with mock.patch.object(self.flask, name, own):
                self.assertFalse(self.is_as_published(), name)
        for name in ("request_class", "response_class"):
            with mock.patch.object(self.flask, name, type("Request", (), {"__module__": "shop"})):
                self.assertFalse(self.is_as_published(), name)
        with mock.patch.object(self.flask, "session_interface", type("Sessions", (), {"__module__": "flask_session"})()):
            self.assertFalse(self.is_as_published())
        self.receivers.append(own)
        self.assertFalse(self.is_as_published())
        own.__module__ = "wasgi_guest.caught"
        self.assertTrue(self.is_as_published())

    def compiled(self, change=None):
        """The templates that are compiled of an app with three, of which one cannot be."""
        app = self.app([])
        app.jinja_loader, app.iter_blueprints, compiled = self.loader(), list, []

        def get_template(name):
            if name == "bad.html":
                raise self.error
            compiled.append(name)

        app.jinja_env = mock.Mock(list_templates=lambda: ["b.html", "bad.html", "a.html"], get_template=get_template)
        if change:
            change(app)
        practice._templates(self.module, app)
        return compiled

    def test_templates_in_files_are_compiled_and_a_bad_one_is_left(self):
        self.assertEqual(self.compiled(), ["a.html", "b.html"])

    def test_templates_from_elsewhere_and_environments_of_the_apps_own_are_left(self):
        own = run("def own(*args): pass\n")["own"]
        self.assertEqual(self.compiled(lambda app: setattr(app, "jinja_loader", object())), [])
        scaffold = types.SimpleNamespace(jinja_loader=type("Database", (self.loader,), {})())
        self.assertEqual(self.compiled(lambda app: setattr(app, "iter_blueprints", lambda: [scaffold])), [])
        for name in ("create_jinja_environment", "select_jinja_autoescape"):
            self.assertEqual(self.compiled(lambda app, name=name: setattr(app, name, own)), [], name)
            with mock.patch.object(self.flask, name, own):
                self.assertEqual(self.compiled(), [], name)
