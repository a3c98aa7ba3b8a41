"""A package index on loopback: what is ours from a folder, anything else from the usual index.

It is the only index that the rehearsal gives to pip, since pip takes a name from whichever index
has the highest version of it. So a name of ours can come from nowhere else, not even by chance.
"""

from __future__ import annotations

import hashlib
import html
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote

OURS = re.compile(r"pyframe-.*")  # never looked up elsewhere


def normalized(name: str) -> str:
    """Return the name of a distribution as an index spells it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def files(folder: Path) -> dict[str, list[Path]]:
    """Return the wheels and source distributions of a folder by the names of what they hold."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".whl":
            found.setdefault(normalized(path.name.split("-")[0]), []).append(path)
        elif path.name.endswith(".tar.gz"):
            name = path.name.removesuffix(".tar.gz").rpartition("-")[0]
            found.setdefault(normalized(name), []).append(path)
    return found


def page(links: Iterator[tuple[str, str]]) -> bytes:
    """Return a page of links, of pairs (address, text)."""
    lines = [f'<a href="{html.escape(to)}">{html.escape(text)}</a><br>' for to, text in links]
    return "\n".join(["<!DOCTYPE html><html><body>", *lines, "</body></html>"]).encode()


@contextmanager
def serve(folder: Path, elsewhere: str) -> Iterator[str]:
    """Serve a folder, as it is at each request, and yield the address of the index.

    Parameters
    ----------
    folder : Path
        With wheels and source distributions.
    elsewhere : str
        The address of the index that has the names which are not ours.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = [unquote(part) for part in self.path.strip("/").split("/")]
            ours = files(folder)
            if parts == ["simple"]:
                self.answer(page((f"{name}/", name) for name in ours))
            elif len(parts) == 2 and parts[0] == "simple":
                name = normalized(parts[1])
                if name in ours:
                    self.answer(page(map(link, ours[name])))
                elif OURS.fullmatch(name):
                    self.send_error(404, f"{name} is ours, and it is not there")
                else:
                    self.send_response(302)
                    self.send_header("Location", f"{elsewhere.rstrip('/')}/{quote(name)}/")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
            elif len(parts) == 2 and parts[0] == "files":
                found = [path for paths in ours.values() for path in paths if path.name == parts[1]]
                if found:
                    self.answer(found[0].read_bytes(), "application/octet-stream")
                else:
                    self.send_error(404)
            else:
                self.send_error(404)

        def answer(self, body: bytes, kind: str = "text/html; charset=utf-8") -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/simple"
    finally:
        server.shutdown()
        server.server_close()


def link(path: Path) -> tuple[str, str]:
    """Return the address of a file, with its hash, and its name."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"/files/{quote(path.name)}#sha256={digest}", path.name
