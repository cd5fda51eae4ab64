"""`concurrent.futures.ThreadPoolExecutor` where there are no threads: what is submitted is done at once, by who submits it. What waits for
its futures afterwards finds them done; what relies on two of them running side by side waits for ever, as it would with one worker."""

from concurrent.futures import Future, thread


def install():
    """In place of starting threads, which fails."""
    thread.ThreadPoolExecutor.submit = _submit


def _submit(self, fn, /, *args, **kwargs):
    # As the original asks, under its names.
    if self._broken:
        raise thread.BrokenThreadPool(self._broken)
    if self._shutdown:
        raise RuntimeError("cannot schedule new futures after shutdown")
    if not hasattr(self, "_wasgi_initialized"):
        self._create_worker_context().initialize()
        self._wasgi_initialized = True
    future = Future()
    future.set_running_or_notify_cancel()
    try:
        result = fn(*args, **kwargs)
    except Exception as error:
        future.set_exception(error)
    else:
        future.set_result(result)
    return future
