"""One application for servers of Python: ASGI (uvicorn, hypercorn), WSGI (gunicorn, waitress) and aiohttp's own.

Writes a line of JSON to $ORIGIN_LOG for each request that it received whole.
"""

import asyncio
import hashlib
import json
import os


def note(method, target, body):
    line = json.dumps([method, target, hashlib.sha256(body).hexdigest()], separators=(",", ":"))
    with open(os.environ["ORIGIN_LOG"], "a") as log:
        log.write(line + "\n")


async def asgi(scope, receive, send):
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    query = scope["query_string"].decode("latin-1")
    note(scope["method"], scope["raw_path"].decode("latin-1") + ("?" + query if query else ""), body)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def wsgi(environ, start_response):
    body = environ["wsgi.input"].read()
    # WSGI tells its application of a request that broke off by nothing but its length.
    if len(body) == int(environ.get("CONTENT_LENGTH") or len(body)):
        note(environ["REQUEST_METHOD"], environ["RAW_URI"], body)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


def aio():
    from aiohttp import web

    async def answer(request):
        body = await request.read()
        note(request.method, request.raw_path, body)
        return web.Response(body=b"ok")

    async def serve():
        runner = web.ServerRunner(web.Server(answer))
        await runner.setup()
        host, port = os.environ["MESH_APP_ADDR"].split(":")
        await web.TCPSite(runner, host, int(port)).start()
        await asyncio.Event().wait()

    asyncio.run(serve())


if __name__ == "__main__":
    aio()
