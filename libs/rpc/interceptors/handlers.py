"""Wrapping a method's handler, whatever its kind.

gRPC has four kinds of methods and, for two of them, two styles of handler (async generator, or read/write on
the context). An interceptor here writes one coroutine, `around`, and `wrap` puts it around all of them.

Responses of streaming methods are written with `context.write` inside `around`, not handed up as a generator:
so an exception in the generator is raised within `around`, a cancelled call closes the generator in the task
it ran in, and context variables set for the call are seen by all of its handler.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Protocol, TypeAlias, cast

import grpc

from libs.core.errors import InvalidInput

Context = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behaviour = Callable[[Any, Context], Any]
Next = Callable[[], Awaitable[Any]]

_MAKERS: dict[tuple[bool, bool], Callable[..., Any]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


class Around(Protocol):
    """Runs before and after a call; it returns what `proceed` returns, or raises."""

    async def __call__(self, context: Context, proceed: Next) -> Any:
        """Handle one call; `proceed()` runs the rest of the chain and the handler."""
        ...


def wrap(handler: Handler, around: Around) -> Handler:
    """`handler` with `around` outside of it; the kind stays the same."""
    inner = behaviour(handler)

    async def stream(request: Any, context: Context) -> None:
        await around(context, lambda: _write_all(inner(request, context), context))

    async def unary(request: Any, context: Context) -> Any:
        return await around(context, lambda: inner(request, context))

    return remade(handler, stream if handler.response_streaming else unary)


def parsing_inside(handler: Handler) -> Handler:
    """`handler` with its messages parsed and serialised in its own call instead of before and after it.

    gRPC parses a unary request before any interceptor sees it, and answers a failure with the text of the
    exception. Here nothing is parsed before the caller is known, and a failure is an error like any other.
    """
    inner, kind = behaviour(handler), (handler.request_streaming, handler.response_streaming)
    parse, serialise = _strict(handler.request_deserializer), handler.response_serializer

    def parsed(raw: bytes, context: Context) -> Any:
        return inner(parse(raw), context)

    receive: Behaviour = inner if handler.request_streaming else parsed

    async def serialised(request: Any, context: Context) -> Any:
        response = await receive(request, context)
        return response if serialise is None else serialise(response)

    return cast(
        Handler,
        _MAKERS[kind](
            receive if handler.response_streaming else serialised,
            request_deserializer=parse if handler.request_streaming else None,
            response_serializer=serialise if handler.response_streaming else None,
        ),
    )


def refusing(error: Exception) -> Handler:
    """A handler for a method that is not served.

    Any client may call it: on the wire all kinds begin alike.
    """

    async def refuse(_requests: Any, _context: Context) -> None:
        raise error

    return grpc.stream_stream_rpc_method_handler(refuse)


def behaviour(handler: Handler) -> Behaviour:
    """The one function of a handler that is set, by its kind."""
    functions = (handler.unary_unary, handler.unary_stream, handler.stream_unary, handler.stream_stream)
    return cast(Behaviour, next(function for function in functions if function is not None))


def remade(handler: Handler, function: Behaviour) -> Handler:
    """The same kind of handler, with the same (de)serialisers, around another function."""
    return cast(
        Handler,
        _MAKERS[handler.request_streaming, handler.response_streaming](
            function,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        ),
    )


async def _write_all(result: AsyncIterator[Any] | Awaitable[None], context: Context) -> None:
    """Send what a streaming handler yields; one that writes by itself is awaited."""
    if inspect.isasyncgen(result):
        async with aclosing(result) as messages:
            async for message in messages:
                await context.write(message)
    elif isinstance(result, AsyncIterator):
        async for message in result:
            await context.write(message)
    else:
        await result


def _strict(deserialise: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    """Parse a message, or InvalidInput.

    The parser's own text could quote the message, so it is not passed on.
    """

    def parse(raw: bytes) -> Any:
        try:
            return raw if deserialise is None else deserialise(raw)
        except Exception as error:  # protobuf's DecodeError, and whatever a hostile message provokes
            raise InvalidInput(
                "The message does not follow the method's definition. Use the client of this release."
            ) from error

    return parse
