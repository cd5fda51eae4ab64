"""The component's exports. Importing this module, at build time, imports the application: what is there afterwards is what
every instance begins with."""

from componentize_py_types import Err
from wit_world import exports

from . import command, gateway, snapshot

_app = snapshot.take()
_is_new = True


class Application(exports.Application):
    def call(self, variables, https, multiprocess, run_once):
        global _is_new
        if _is_new:
            _is_new = False
            snapshot.thaw()
        return gateway.call(_app, variables, https, multiprocess, run_once)

    def next(self):
        return gateway.next_part()

    def close(self):
        gateway.close()


class Run(exports.Run):
    def run(self):
        snapshot.thaw()
        if not command.run(_app):
            raise Err(None)
