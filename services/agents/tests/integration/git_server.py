"""A real git server over smart HTTP: `git http-backend` behind a small HTTP server that asks for a token."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "Test",
    "GIT_AUTHOR_EMAIL": "test@omoios.invalid",
    "GIT_COMMITTER_NAME": "Test",
    "GIT_COMMITTER_EMAIL": "test@omoios.invalid",
}


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder; its output."""
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", "-C", str(folder), *arguments],
        env=ENVIRONMENT,
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class GitServer:
    """One repository `project-1.git` with a branch for each task that the tests name."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bare = root / "project-1.git"
        seed = root / "seed"
        seed.mkdir()
        git(seed, "init", "--quiet", "--initial-branch", "main")
        (seed / "README.md").write_text("A repository.\n")
        git(seed, "add", ".")
        git(seed, "commit", "--quiet", "-m", "First")
        git(root, "clone", "--quiet", "--bare", str(seed), str(self.bare))
        git(self.bare, "config", "http.receivepack", "true")
        self.base_sha = git(self.bare, "rev-parse", "main")
        self.passwords: set[str] = set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def clone_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/project-1.git"

    def branch(self, name: str) -> None:
        git(self.bare, "branch", name, "main")

    def show(self, revision: str) -> str:
        return git(self.bare, "show", revision)

    def log(self, branch: str) -> list[str]:
        return git(self.bare, "log", "--format=%s", f"main..{branch}").splitlines()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer(b"")

            def do_POST(self) -> None:
                if self.headers.get("Transfer-Encoding") == "chunked":
                    body = b""
                    while size := int(self.rfile.readline().strip() or b"0", 16):
                        body += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                else:
                    body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self._answer(body)

            def _answer(self, body: bytes) -> None:
                kind, _, credential = self.headers.get("Authorization", "").partition(" ")
                if kind != "Basic":
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", 'Basic realm="git"')
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                owner.passwords.add(base64.b64decode(credential).decode().partition(":")[2])
                parts = urlsplit(self.path)
                environment = ENVIRONMENT | {
                    "GIT_PROJECT_ROOT": str(owner.root),
                    "GIT_HTTP_EXPORT_ALL": "1",
                    "PATH_INFO": parts.path,
                    "QUERY_STRING": parts.query,
                    "REQUEST_METHOD": self.command,
                    "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                    "REMOTE_USER": "sandbox",
                    "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                    "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                    "GIT_CONFIG_COUNT": "1",
                    "GIT_CONFIG_KEY_0": "safe.directory",
                    "GIT_CONFIG_VALUE_0": "*",
                }
                done = subprocess.run(
                    ["git", "http-backend"], input=body, env=environment, capture_output=True, check=True
                )
                head, _, content = done.stdout.partition(b"\r\n\r\n")
                status = 200
                headers = []
                for line in head.decode().split("\r\n"):
                    name, _, value = line.partition(": ")
                    if name == "Status":
                        status = int(value.split()[0])
                    else:
                        headers.append((name, value))
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_arguments: Any) -> None:
                """Say nothing."""

        return Handler
