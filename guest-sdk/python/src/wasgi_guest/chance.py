"""The seed of `random`, which every instance has one of its own of: the interpreter's runtime takes `random.seed` when the build is done, and
calls it before an instance's first call.

CPython's own seed is as long as the generator's state, 2,500 bytes, which the host makes and hands over in ten pieces: a fifth of a
small call. 32 bytes are more than anybody could guess, too, and `random` promises nobody that it could not be predicted."""

import os
import random

_BYTES = 32


def install():
    """The last thing of the build."""
    seed = random.seed

    def begin(a=None, version=2):
        random.seed = seed
        if a is None:
            a = int.from_bytes(os.urandom(_BYTES))
        seed(a, version)

    random.seed = begin
