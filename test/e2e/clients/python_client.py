"""Drives Python's `mcp` client: one JSON command a line on stdin, one JSON answer a line on stdout."""

import asyncio
import json
import sys
from contextlib import asynccontextmanager

from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import create_mcp_http_client, streamable_http_client


def dump(model):
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


async def answer(client, command):
    match command["do"]:
        case "version":
            return {"version": client.protocol_version, "instructions": client.instructions or ""}
        case "list":
            return dump(await client.list_tools())
        case "call":
            return dump(await client.call_tool(command["tool"], command["arguments"], read_timeout_seconds=60))
        case "read":
            return dump(await client.read_resource(command["uri"]))


@asynccontextmanager
async def server_of(start):
    if "url" not in start:
        yield StdioServerParameters(command=start["command"], args=start["args"], env=start["env"])
        return
    headers = {"Authorization": f"Bearer {start['token']}"} if start["token"] else {}
    async with create_mcp_http_client(headers=headers) as http:
        yield streamable_http_client(start["url"], http_client=http)


def innermost(error):
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


def say(reply):
    print(json.dumps(reply), flush=True)


async def serve(start):
    async with server_of(start) as server, Client(server, mode=start["mode"]) as client:
        say({"ok": {}})
        while line := await asyncio.to_thread(sys.stdin.readline):
            try:
                reply = {"ok": await answer(client, json.loads(line))}
            except MCPError as error:
                reply = {"error": str(error)}
            say(reply)


async def main():
    try:
        await serve(json.loads(sys.stdin.readline()))
    except Exception as error:
        say({"error": innermost(error)})


asyncio.run(main())
