"""What runs inside with the app, as far as it needs nothing of the sandbox: python3 -m unittest discover guest-sdk/python/tests"""

import io
import logging
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

from wasgi_guest import caught


class Caught(unittest.TestCase):
    def setUp(self):
        caught.last = None
        self.addCleanup(logging.setLogRecordFactory, logging.getLogRecordFactory())
        caught.install()
        self.logger = logging.Logger("a framework's")

    def fail(self):
        raise ValueError("secret reason")

    def log(self, **keywords):
        try:
            self.fail()
        except ValueError as error:
            self.logger.error("it failed", **keywords)
            return error

    def test_who_logs_an_exception_tells_of_it(self):
        self.assertIsNone(caught.of_response())
        self.logger.addHandler(logging.NullHandler())
        self.log()
        self.assertIsNone(caught.of_response())
        error = self.log(exc_info=True)
        self.assertIs(caught.of_response(), error)
        self.assertFalse(caught.is_told(error, "secret reason", ""))

    def test_what_a_handler_has_written_is_told(self):
        self.logger.addHandler(logging.StreamHandler(io.StringIO()))
        error = self.log(exc_info=True)
        self.assertTrue(caught.is_told(error, "secret reason", ""))
        self.assertFalse(caught.is_told(KeyError("x"), "'x'", "Traceback (most recent call last):\nValueError: y"))
        self.assertTrue(caught.is_told(KeyError("x"), "'x'", "Traceback (most recent call last):\nKeyError: 'x'"))

    def test_an_exception_that_is_being_handled_is_what_a_response_is_about(self):
        try:
            self.fail()
        except ValueError as error:
            self.assertIs(caught.of_response(), error)
        self.assertIsNone(caught.of_response())

    def test_a_factory_of_the_apps_own_goes_on(self):
        made = logging.getLogRecordFactory()
        logging.setLogRecordFactory(lambda *arguments, **keywords: made(*arguments, **keywords))
        self.logger.addHandler(logging.NullHandler())
        self.assertIs(self.log(exc_info=True), caught.of_response())


if __name__ == "__main__":
    unittest.main()
