"""The small language of tests/guests/probe/src/script.rs, which says what the steps are."""

import sys
import time

import faults


def run(environ, query, start_response):
    script = Script(environ, query.pairs, start_response)
    blocks = []
    for step, argument in script.steps:
        if step == "iterate":
            return script
        block = script.take(step, argument)
        if block is not None:
            blocks.append(block)
    # A list has no close(): a script that wants one is its own iterable.
    return Closing(blocks, script) if script.closes else blocks


class Script:
    """What `iterate=` returns: the rest of the steps."""

    def __init__(self, environ, steps, start_response):
        self.environ = environ
        self.start_response = start_response
        self.steps = iter(steps)
        self.headers = []
        self.write = None
        self.closes = None

    def __iter__(self):
        return self

    def __next__(self):
        for step, argument in self.steps:
            block = self.take(step, argument)
            if block is not None:
                return block
        raise StopIteration

    def close(self):
        if self.closes:
            self.log(f"closed {self.closes}")

    def log(self, line):
        self.environ["wsgi.errors"].write(f"{line}\n")

    def take(self, step, argument):
        """Does a step; its block, if it makes one."""
        match step:
            case "header":
                name, _, value = argument.partition(":")
                self.headers.append((name, value))
            case "start":
                self.write = self.start(argument)
            case "try-start":
                try:
                    self.write = self.start(argument)
                except Exception as error:
                    self.log(f"raised: {error}")
            case "restart":
                try:
                    raise faults.ProbeError("secret reason")
                except faults.ProbeError:
                    self.write = self.start(argument, sys.exc_info())
            case "write":
                self.write(argument.encode("latin-1"))
            case "log":
                self.log(argument)
            case "raise":
                raise faults.ProbeError(argument)
            case "sleep":
                time.sleep(int(argument) / 1000)
            case "spin":
                while True:
                    pass
            case "closes":
                self.closes = argument
            case "block":
                return argument.encode("latin-1")
            case "fill":
                return b"x" * int(argument)
            case "line":
                return self.environ["wsgi.input"].readline(1000)
            case _:
                raise LookupError(f"no step {step}")
        return None

    def start(self, status, *exc_info):
        headers, self.headers = self.headers, []
        if "VALIDATED" in self.environ and status[:3] not in ("204", "304") and not any(
            name.lower() == "content-type" for name, _ in headers
        ):
            # The validator wants one.
            headers.append(("Content-Type", "text/plain"))
        return self.start_response(status, headers, *exc_info)


class Closing(list):
    def __init__(self, blocks, script):
        super().__init__(blocks)
        self.close = script.close
