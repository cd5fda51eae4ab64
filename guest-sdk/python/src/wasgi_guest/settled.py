"""What an app has made when it is built stays, in every instance: nobody counts references to it.

CPython writes to an object's head whenever somebody refers to it for a moment. Of the pages that a small call has written to, two fifths are afterwards as they
were before, and most others differ in a few words: but the host has to put back, or map anew, all of each. Immortal objects
(PEP 683, whose second reason this is) are not written to. And the collector, which would write to each one's head, has nothing to look for among
what stays.

What somebody waits for the end of is left as it is: what has a finaliser, or a weak reference that calls back.

And what a call makes goes behind all that, side by side, instead of into the gaps that an import has left in each page."""

import gc
import types
import weakref

import _wasgi_native

# They end when what they are of does.
_PASSING = (
    types.FrameType,
    types.GeneratorType,
    types.CoroutineType,
    types.AsyncGeneratorType,
    types.TracebackType,
)


def settle():
    """The last thing of the build. Returns how many objects."""
    gc.collect()
    staying = [each for each in gc.get_objects() if _stays(each)]
    staying += _constants([each.__code__ for each in staying if type(each) is types.FunctionType])
    count = _wasgi_native.settle(staying)
    del staying
    gc.freeze()
    _wasgi_native.fill()
    return count


def _stays(each):
    kind = type(each)
    if issubclass(kind, type):
        return True
    if issubclass(kind, _PASSING) or hasattr(kind, "__del__"):
        return False
    return all(type(reference) is weakref.ref and reference.__callback__ is None for reference in weakref.getweakrefs(each))


def _constants(codes):
    """What code has of its own: it is not the collector's."""
    found = []
    while codes:
        code = codes.pop()
        found += (code, code.co_names, code.co_consts, *code.co_consts)
        codes += [each for each in code.co_consts if type(each) is types.CodeType]
    return found
