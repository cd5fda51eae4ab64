"""`urllib3`, which `requests` rests on: its connections through the host. It makes its own sockets, and has no HTTPS where Python
has none."""

from urllib3 import connection, connectionpool, exceptions

from .outbound import Wire


class HTTPConnection(connection.HTTPConnection):
    scheme = "http"
    # The host verifies, or there is no connection.
    is_verified = True

    def __init__(self, host, port=None, *, timeout=None, **options):
        options = {name: options[name] for name in ("blocksize", "proxy", "proxy_config") if name in options}
        super().__init__(host, port, timeout=timeout, **options)

    def _new_conn(self):
        if self.proxy is not None:
            raise exceptions.ProxyError("there are no proxies through the host", OSError("it connects by itself"))
        return Wire(self.scheme, self._dns_host.strip("[]"), self.port, self.timeout)

    @property
    def is_connected(self):
        # The connection is the host's, and for one request.
        return False


class HTTPSConnection(HTTPConnection):
    scheme = "https"
    default_port = 443


def install():
    for pool, kind in (
        (connectionpool.HTTPConnectionPool, HTTPConnection),
        (connectionpool.HTTPSConnectionPool, HTTPSConnection),
    ):
        pool.ConnectionCls = kind
    connection.HTTPSConnection = HTTPSConnection
