"""Key-value stores: those that the operator grants the app, and the app's sidecar asks for (`keyvalue`).

    from wasgi import keyvalue

    visits = keyvalue.open().increment("visits")

Keys are texts, values bytes. What a function has written outlives the host, and every later call finds it. Stores are opened where a
request is served: while the app is built there is no host. Outside of the sandbox, in tests, a store is a dictionary of this process."""

try:
    # Inside, this is the host.
    from wit_world.imports import atomics as _atomics
    from wit_world.imports import batch as _batch
    from wit_world.imports import store as _store
except ImportError:
    _store = None

__all__ = ["Denied", "Error", "NoSuchStore", "Store", "open"]


class Error(Exception):
    """A limit, a key or a value that is none, or the store's own trouble: the text says which."""


class NoSuchStore(Error):
    """The app's sidecar does not ask for a store of this name."""


class Denied(Error):
    """The operator does not grant it any more."""


def open(name="default"):
    """A store by its name; tools call the one store of a program "default"."""
    if _store is None:
        return Store(_native.setdefault(name, _Dictionary()))
    return Store(_Bucket(_said(_store.open, name)))


class Store:
    """An open store."""

    def __init__(self, inner):
        self._inner = inner

    def get(self, key, default=None):
        """The bytes of a key."""
        return next(iter(self.get_many([key])), (key, default))[1]

    def set(self, key, value):
        """Gives a key a value: bytes, or a text, which is kept as UTF-8."""
        self.set_many({key: value})

    def delete(self, key):
        """Takes a key away, if it is there."""
        self.delete_many([key])

    def exists(self, key):
        return self._inner.exists(key)

    def keys(self):
        """All keys, in the order of their bytes, fetched as they are needed."""
        cursor = None
        while True:
            keys, cursor = self._inner.list(cursor)
            yield from keys
            if cursor is None:
                return

    def increment(self, key, delta=1):
        """Adds to a number and returns the sum. A key that is not there counts as zero; the number is kept as text."""
        return self._inner.increment(key, delta)

    def update(self, key, change):
        """Gives a key the value that `change` makes of its present one, which is None where there is none. Where another call was faster,
        `change` is asked again."""
        seen = self._inner.observe(key)
        while seen is not None:
            seen = self._inner.swap(seen, _bytes(change(self._inner.current(seen))))

    def get_many(self, keys):
        """Pairs of keys and values, in the order of the keys, of those that are there."""
        return self._inner.get_many(list(keys))

    def set_many(self, values):
        """Gives several keys their values, a dictionary's: all of them or none."""
        self._inner.set_many([(key, _bytes(value)) for key, value in dict(values).items()])

    def delete_many(self, keys):
        """Takes several keys away: all of them or none."""
        self._inner.delete_many(list(keys))


def _bytes(value):
    return value.encode() if isinstance(value, str) else bytes(value)


def _said(ask, *arguments):
    """What the host answers, or an exception of ours."""
    from componentize_py_types import Err

    try:
        return ask(*arguments)
    except Err as error:
        raise _error(error.value) from None


def _error(said):
    match type(said).__name__:
        case "Error_NoSuchStore":
            return NoSuchStore("the app has not asked for this key-value store")
        case "Error_AccessDenied":
            return Denied("the host denies the key-value store")
        case _:
            return Error(said.value)


class _Bucket:
    """A store of the host's."""

    def __init__(self, bucket):
        self.bucket = bucket

    def exists(self, key):
        return _said(self.bucket.exists, key)

    def list(self, cursor):
        page = _said(self.bucket.list_keys, cursor)
        return page.keys, page.cursor

    def increment(self, key, delta):
        return _said(_atomics.increment, self.bucket, key, delta)

    def observe(self, key):
        return _said(_atomics.Cas.new, self.bucket, key)

    def current(self, seen):
        return _said(seen.current)

    def swap(self, seen, value):
        from componentize_py_types import Err

        try:
            _atomics.swap(seen, value)
        except Err as error:
            if type(error.value).__name__ == "CasError_CasFailed":
                return error.value.value
            raise _error(error.value.value) from None

    def get_many(self, keys):
        return [pair for pair in _said(_batch.get_many, self.bucket, keys) if pair is not None]

    def set_many(self, pairs):
        _said(_batch.set_many, self.bucket, pairs)

    def delete_many(self, keys):
        _said(_batch.delete_many, self.bucket, keys)


_native = {}


class _Dictionary:
    """A store of a test's."""

    def __init__(self):
        self.entries = {}

    def exists(self, key):
        return key in self.entries

    def list(self, _):
        return sorted(self.entries, key=str.encode), None

    def increment(self, key, delta):
        try:
            number = int(self.entries.get(key, b"0")) + delta
        except ValueError:
            raise Error("the value is not a number") from None
        self.entries[key] = str(number).encode()
        return number

    def observe(self, key):
        return (key,)

    def current(self, seen):
        return self.entries.get(*seen)

    def swap(self, seen, value):
        self.entries[seen[0]] = value

    def get_many(self, keys):
        return [(key, self.entries[key]) for key in keys if key in self.entries]

    def set_many(self, pairs):
        self.entries.update(pairs)

    def delete_many(self, keys):
        for key in keys:
            self.entries.pop(key, None)
