"""`wasgi build`: an unmodified WSGI application becomes one sandboxed WebAssembly component."""
