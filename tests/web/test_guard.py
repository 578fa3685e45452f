"""Only what the page needs gets to gradio: its routes, its files, bodies of bounded size."""

import asyncio

import pytest

from swin_dense.web import guard
from swin_dense.web.guard import Guard


async def echo(scope, receive, send):
    """Answer with the number of bytes that came, once all of them are there."""
    count, more = 0, True
    while more:
        message = await receive()
        count, more = count + len(message["body"]), message.get("more_body", False)
    own = [(b"x-content-type-options", b"sniff")]
    await send({"type": "http.response.start", "status": 200, "headers": own})
    await send({"type": "http.response.body", "body": str(count).encode()})


def asked(app, path, parts=(b"",), told=None):
    """Return (status, headers, body) that the guard's application answers."""
    left, sent = list(parts), []

    async def receive():
        part = left.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(left)}

    async def send(message):
        sent.append(message)

    headers = [] if told is None else [(b"content-length", str(told).encode())]
    asyncio.run(app({"type": "http", "path": path, "headers": headers}, receive, send))
    start, body = sent
    return start["status"], dict(start["headers"]), body["body"].decode()


@pytest.fixture
def app(tmp_path):
    folder = tmp_path / "page"
    (folder / "hash").mkdir(parents=True)
    (folder / "hash/a picture.png").write_bytes(b"1234567")
    (folder / "way out").symlink_to("/etc")
    (tmp_path / "page of another").mkdir()
    return Guard(echo, size=1000, folder=str(folder))


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/config",
        "/theme.css",
        "/assets/a/b.js",
        "/gradio_api/upload",
        "/gradio_api/heartbeat/a1",
    ]
    + ["/gradio_api/file={}/hash/a picture.png", "/gradio_api/file={}/none.png"],
)
def test_what_the_page_needs_is_let_through(app, path):
    status, headers, _ = asked(app, path.format(app.folder))
    assert status == 200
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert b"default-src 'self'" in headers[b"content-security-policy"]


@pytest.mark.parametrize(
    "path",
    ["/docs", "/monitoring", "/gradio_api/proxy=http://a.b/", "/gradio_api/process_recording"]
    + ["/gradio_api/vibe-edit", "/gradio_api/component_server", "/gradio_api/runs", "", "/x/config"]
    + [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file={}/../x",
        "/gradio_api/file={} of another/x",
    ]
    + ["/gradio_api/file=http://a.b/c", "/gradio_api/file=HTTP://a.b/c", "/gradio_api/file=x\0"]
    + ["/gradio_api/file={}/way out/passwd", "/gradio_api/file=" + "x/" * 3000 + "x" * 300],
)
def test_nothing_else_is_there(app, path):
    assert asked(app, path.format(app.folder))[::2] == (404, "There is nothing here.")


def test_a_body_that_is_too_large_is_not_read_to_its_end(app, monkeypatch):
    most = 1000 + guard.FRAME
    assert asked(app, guard.UPLOAD, [bytes(most - 1), b"x"])[2] == str(most)
    status, _, words = asked(app, guard.UPLOAD, [bytes(most), b"x", AssertionError("read on")])
    assert (status, words) == (413, "The file is too large: 0.000954 MB are allowed here.")
    for told in (most + 1, "many"):
        assert asked(app, guard.UPLOAD, [AssertionError("read")], told)[0] == 413
    assert asked(app, "/gradio_api/queue/join", [bytes(guard.JSON), b"x"])[0] == 413
    monkeypatch.setattr(guard, "FOLDER", 6)
    status, _, words = asked(app, guard.UPLOAD)
    assert (status, words[:22]) == (507, "There is no room for m")
    assert asked(app, "/config")[0] == 200
