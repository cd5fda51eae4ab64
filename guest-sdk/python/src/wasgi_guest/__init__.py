"""What runs inside the sandbox, with the app: a PEP 3333 server side over wasgi's contract."""
