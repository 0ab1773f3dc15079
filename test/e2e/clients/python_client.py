"""Drives Python's `mcp` client: one JSON command a line on stdin, one JSON answer a line on stdout."""

import asyncio
import json
import sys

from mcp import Client, MCPError, StdioServerParameters


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


async def main():
    start = json.loads(sys.stdin.readline())
    server = StdioServerParameters(command=start["command"], args=start["args"], env=start["env"])
    async with Client(server, mode=start["mode"]) as client:
        print(json.dumps({"ok": {}}), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            try:
                reply = {"ok": await answer(client, json.loads(line))}
            except MCPError as error:
                reply = {"error": str(error)}
            print(json.dumps(reply), flush=True)


asyncio.run(main())
