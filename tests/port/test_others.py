"""A library that others wrote for streams of anyio runs unchanged over a port: the sessions of the MCP Python SDK.

Belongs here: that one outside check. Never here: what streams promise (`test_streams`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

import alpc_async as alpc

mcp = pytest.importorskip("mcp", reason="the MCP SDK is not installed; it comes with the dependency group 'tests'")

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self


class Messages:
    """An object stream of bytes as the stream of messages that the SDK takes: each object is one JSON text."""

    def __init__(self, stream: alpc.PortObjectStream) -> None:
        self._stream = stream

    async def send(self, item: Any) -> None:
        """Send one message."""
        await self._stream.send(item.message.model_dump_json(by_alias=True, exclude_unset=True).encode())

    async def receive(self) -> Any:
        """Receive one message."""
        from mcp.shared.message import SessionMessage
        from mcp.types import jsonrpc_message_adapter

        return SessionMessage(jsonrpc_message_adapter.validate_json(await self._stream.receive()))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        """Close the port."""
        await self._stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.aclose()


async def test_sessions_of_another_library_run_over_a_port() -> None:
    """A client session lists and calls the tools of a server session, each at one end of a port."""
    from mcp import types
    from mcp.client.session import ClientSession
    from mcp.server.lowlevel import Server

    async def list_tools(_context: Any, _parameters: Any) -> Any:
        schema = {"type": "object", "properties": {"text": {"type": "string"}}}
        return types.ListToolsResult(tools=[types.Tool(name="upper", input_schema=schema)])

    async def call_tool(_context: Any, parameters: Any) -> Any:
        return types.CallToolResult(content=[types.TextContent(type="text", text=parameters.arguments["text"].upper())])

    server: Any = Server("acme", on_list_tools=list_tools, on_call_tool=call_tool)
    left, right = alpc.port_pair()
    client_end, server_end = Messages(left.object_stream()), Messages(right.object_stream())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.run, server_end, server_end, server.create_initialization_options())
        async with ClientSession(client_end, client_end) as session:
            await session.initialize()
            assert [tool.name for tool in (await session.list_tools()).tools] == ["upper"]
            called: Any = await session.call_tool("upper", {"text": "hello"})
            assert called.content[0].text == "HELLO"
        tasks.cancel_scope.cancel()
    await client_end.aclose()
    await server_end.aclose()
