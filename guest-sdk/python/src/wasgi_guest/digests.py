"""`hashlib.pbkdf2_hmac` and `hashlib.scrypt`: CPython has them from OpenSSL, which is not in the sandbox; ours are in `_wasgi_native`,
and run inside it."""

import hashlib
import hmac

# Those that `_wasgi_native` knows; any other is computed here, slowly.
_FAST = frozenset(("sha1", "sha224", "sha256", "sha384", "sha512"))
_MAX = (1 << 31) - 1
# What OpenSSL allows scrypt where nobody says otherwise.
_SCRYPT_MEMORY = 32 << 20


def install():
    """Where hashlib lacks them."""
    for function in (pbkdf2_hmac, scrypt):
        if not hasattr(hashlib, function.__name__):
            setattr(hashlib, function.__name__, function)


def pbkdf2_hmac(hash_name, password, salt, iterations, dklen=None):
    """Password based key derivation function 2 (PKCS #5 v2.0, RFC 8018), with HMAC."""
    if not isinstance(hash_name, str):
        raise TypeError("hash_name must be a string")
    name = hash_name.lower().replace("sha-", "sha")
    length = hashlib.new(name).digest_size if dklen is None else dklen
    if not 1 <= iterations <= _MAX:
        raise ValueError("iteration value must be greater than 0 and no more than 2**31 - 1")
    if not 1 <= length <= _MAX:
        raise ValueError("key length must be greater than 0 and no more than 2**31 - 1")
    password, salt = bytes(memoryview(password)), bytes(memoryview(salt))
    if name in _FAST:
        import _wasgi_native

        return _wasgi_native.pbkdf2(name, password, salt, iterations, length)
    return _pbkdf2(name, password, salt, iterations, length)


def _pbkdf2(name, password, salt, iterations, length):
    keyed = hmac.new(password, digestmod=name)
    key = b""
    for index in range(1, -(-length // keyed.digest_size) + 1):
        block = _step(keyed, salt + index.to_bytes(4, "big"))
        total = int.from_bytes(block, "big")
        for _ in range(iterations - 1):
            block = _step(keyed, block)
            total ^= int.from_bytes(block, "big")
        key += total.to_bytes(keyed.digest_size, "big")
    return key[:length]


def _step(keyed, block):
    digest = keyed.copy()
    digest.update(block)
    return digest.digest()


def scrypt(password, *, salt, n, r, p, maxmem=0, dklen=64):
    """scrypt password-based key derivation function (RFC 7914)."""
    import _wasgi_native

    if n < 2 or n & (n - 1):
        raise ValueError("n must be a power of 2")
    if r < 1 or p < 1 or r * p >= 1 << 30:
        raise ValueError("r and p must be positive, and r * p less than 2**30")
    if not 1 <= dklen <= _MAX:
        raise ValueError("dklen must be greater than 0 and smaller than 2**31")
    if not 0 <= maxmem <= _MAX:
        raise ValueError("maxmem must be positive and smaller than 2**31")
    if 128 * r * (p + n + 2) > (maxmem or _SCRYPT_MEMORY):
        raise ValueError("memory limit exceeded: scrypt needs a larger maxmem")
    return _wasgi_native.scrypt(bytes(memoryview(password)), bytes(memoryview(salt)), n.bit_length() - 1, r, p, dklen)
