# A `wasi:http` component as componentize-py's example is written: asyncio over WASI's polls. The last segment of the path names
# a behaviour.

import asyncio

import poll_loop
from componentize_py_types import Err, Ok
from poll_loop import PollLoop, Sink, Stream
from wit_world import exports
from wit_world.imports.types import (
    Fields,
    IncomingRequest,
    Method_Get,
    Method_Post,
    OutgoingRequest,
    OutgoingResponse,
    ResponseOutparam,
    Scheme_Http,
)


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        loop = PollLoop()
        asyncio.set_event_loop(loop)
        loop.run_until_complete(handle(request, response_out))


async def handle(request: IncomingRequest, response_out: ResponseOutparam) -> None:
    target = request.path_with_query() or ""
    path, _, query = target.partition("?")
    match path.rsplit("/", 1)[-1]:
        case "hello":
            await respond(response_out, 200, b"hello from Python")
        case "request":
            given = dict(request.headers().entries()).get("x-given", b"").decode()
            method = {Method_Get: "GET", Method_Post: "POST"}.get(type(request.method()), "other")
            await respond(response_out, 200, f"{method} {target} {given}".encode())
        case "status":
            await respond(response_out, int(query), b"a body", [("x-given", b"yes")])
        case "echo":
            response = OutgoingResponse(Fields.from_list([]))
            sink = Sink(response.body())
            ResponseOutparam.set(response_out, Ok(response))
            stream = Stream(request.consume())
            while (piece := await stream.next()) is not None:
                await sink.send(piece)
            sink.close()
        case "outgoing":
            await respond(response_out, 200, await outgoing())
        case "throw":
            raise ValueError("secret reason")
        case _:
            while True:
                pass


async def respond(response_out, status, body, headers=()):
    response = OutgoingResponse(Fields.from_list([("content-type", b"text/plain"), *headers]))
    response.set_status_code(status)
    sink = Sink(response.body())
    ResponseOutparam.set(response_out, Ok(response))
    await sink.send(body)
    sink.close()


async def outgoing() -> bytes:
    request = OutgoingRequest(Fields.from_list([]))
    request.set_scheme(Scheme_Http())
    request.set_authority("elsewhere.example")
    request.set_path_with_query("/secret")
    try:
        await poll_loop.send(request)
        return b"answered"
    except Err as error:
        return f"refused: {type(error.value).__name__}".encode()
