"""A Hugging Face hub on this machine, with models that are folders: what huggingface_hub asks for, and what was asked."""

import hashlib
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """folders: by OWNER/NAME. asked: (file, first byte) of every download. pause: seconds before each block of 64 KiB."""

    def __init__(self, folders: dict[str, Path]):
        self.folders, self.asked, self.pause = folders, [], 0.0
        self.url = ""

    def about(self, repository: str) -> dict:
        folder = self.folders[repository]
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        siblings = [{"rfilename": path.relative_to(folder).as_posix(), "size": path.stat().st_size} for path in files]
        return {"id": repository, "modelId": repository, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False}


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def log_message(self, format, *args):
            pass

        def answer(self, body: bool):
            path = self.path.partition("?")[0]
            if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/[^/]+)?", path):
                if match[1] in hub.folders:
                    return self.send(json.dumps(hub.about(match[1])).encode(), {"Content-Type": "application/json"}, body)
            elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
                file = hub.folders.get(match[1], Path("nowhere")) / match[2]
                if file.is_file():
                    return self.send_file(file, match[2], body)
            self.send(b"{}", {"X-Error-Code": "RepoNotFound"}, body, 404)

        def send_file(self, file: Path, name: str, body: bool):
            content = file.read_bytes()
            headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            start = int(asked[1]) if asked else 0
            if asked:
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            if body:
                hub.asked.append((name, start))
            self.send(content[start:], headers, body, 206 if asked else 200)

        def send(self, content: bytes, headers: dict[str, str], body: bool, status: int = 200):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            for start in range(0, len(content) if body else 0, 2**16):
                time.sleep(hub.pause)
                self.wfile.write(content[start : start + 2**16])

        def handle(self):
            with suppress(ConnectionError):  # who was downloading has been stopped
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
