"""Let through to gradio what the page needs and nothing else, in bounded pieces.

Gradio's server can do more than this page asks of it: fetch addresses, run ffmpeg over uploads,
serve other pages. A route that is none of `ROUTES`, nor a file of the page, is not there; a body
that is larger than an upload may be is not read to its end; the browser is told to load nothing
from elsewhere.
"""

import os
import re
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

ROUTES = re.compile(
    r"/|/config/?|/theme\.css|/favicon\.ico|/robots\.txt|/manifest\.json|"
    r"/(?:assets|static|svelte)/.+|"
    r"/gradio_api/(?:"
    r"upload|upload_progress|queue/join|queue/data|cancel|reset|startup-events|heartbeat/\w+|"
    r"app_id|theme\.css|login_check)/?"
)
FILE = "/gradio_api/file="  # and a path within the page's folder
UPLOAD = "/gradio_api/upload"
JSON = 2**20  # bytes of a body that is no upload
FOLDER = 2**30  # bytes of uploads and pictures that wait to be cleared away
FRAME = 64 * 2**10  # bytes around the file in an upload
HEADERS = {
    # Gradio's own page has scripts and styles in its HTML.
    "content-security-policy": "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class TooLargeError(Exception):
    """A body that is larger than it may be."""


class Guard:
    """Stand before an ASGI application.

    Args:
        size: bytes that an uploaded file may have.
        folder: where uploads are kept.
    """

    def __init__(self, app: Any, size: int, folder: str) -> None:
        self.app, self.size, self.folder = app, size, Path(folder)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # gradio's page uses no websockets
            return
        path = scope["path"]
        if not (ROUTES.fullmatch(path) or self._is_file(path)):
            await _refuse(send, 404, "There is nothing here.")
            return
        upload = path.rstrip("/") == UPLOAD
        if upload and _bytes_in(self.folder) > FOLDER:
            await _refuse(send, 507, "There is no room for more pictures. Try again in a while.")
            return
        await self._bounded(scope, receive, send, self.size + FRAME if upload else JSON)

    def _is_file(self, path: str) -> bool:
        """Return whether a route names a file in the page's folder, and no link out of it."""
        if not path.startswith(FILE):
            return False
        try:
            place = Path(path.removeprefix(FILE)).resolve()
        except (OSError, ValueError, RuntimeError):  # too long a name, a zero in it, a loop
            return False
        return place.is_relative_to(self.folder.resolve())

    async def _bounded(self, scope: Scope, receive: Receive, send: Send, most: int) -> None:
        read, started = 0, False

        async def bounded() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > most:
                raise TooLargeError
            return message

        async def with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                kept = [(k, v) for k, v in message.get("headers", ()) if k.decode() not in HEADERS]
                message["headers"] = kept + [(k.encode(), v.encode()) for k, v in HEADERS.items()]
            await send(message)

        told = next((v for k, v in scope["headers"] if k == b"content-length"), b"0")
        try:
            if not told.isdigit() or int(told) > most:
                raise TooLargeError
            await self.app(scope, bounded, with_headers)
        except TooLargeError:
            if not started:
                mega = f"{self.size / 2**20:.3g}"
                await _refuse(send, 413, f"The file is too large: {mega} MB are allowed here.")


async def _refuse(send: Send, status: int, words: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": words.encode()})


def _bytes_in(folder: Path) -> int:
    """Add up the files in a folder, as far as they are still there."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except OSError:
                continue
    return total
