"""The seed of `random`, which every instance has one of its own of: the interpreter's runtime takes `random.seed` when the build is done, and
calls it before an instance's first call.

CPython's own seed is as long as the generator's state, 2,500 bytes, which the host makes and hands over in ten pieces: a fifth of a
small call. 32 bytes are more than anybody could guess, too, and `random` promises nobody that it could not be predicted. To spread them over the state
takes CPython three passes with multiplications, and `_wasgi_native` one without."""

import os
import random
import struct

import _wasgi_native

_BYTES = 32

# The generator behind the module's functions, and how many words its state has.
_generator = random._inst
_WORDS = 624

# So often, and the interpreter knows what comes by here.
_PRACTICE = 32


def install():
    """The last thing of the build."""
    seed, scatter = random.seed, _wasgi_native.scatter
    is_known = _is_where_it_is_looked_for()

    def begin(a=None, version=2):
        random.seed = seed
        if a is not None:
            seed(a, version)
        elif is_known:
            scatter(_generator, os.urandom(_BYTES))
        else:
            seed(int.from_bytes(os.urandom(_BYTES)))

    for _ in range(_PRACTICE):
        begin()
    # The second half of a pair that was drawn before.
    _generator.gauss_next = None
    random.seed = begin


def _is_where_it_is_looked_for():
    """Whether this interpreter's generators have their state where `_wasgi_native` writes it."""
    trial = random.Random(1)
    words = trial.getstate()[1]
    return _wasgi_native.state(trial) == struct.pack(f"={_WORDS}Ii", *words)
