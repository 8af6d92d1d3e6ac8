"""A proxy before fake-gcs-server that refuses what a principal's roles lack, as Google's IAM does: 403 and
the permission's name.

Roles and conditions are those of cluster/terraform/iam.tf, so that a right that is taken away there shows
here. What each role holds is Google's list (cloud.google.com/storage/docs/access-control/iam-roles), of the
permissions on objects and buckets alone.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import os
import re
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import hcl2

from tests.conftest import ROOT

_OBJECTS = {f"storage.objects.{verb}" for verb in ("get", "list", "create", "delete", "update")}
ROLES = {
    "roles/storage.objectViewer": {"storage.objects.get", "storage.objects.list"},
    "roles/storage.objectCreator": {"storage.objects.create"},
    "roles/storage.objectUser": _OBJECTS,
}
VERSIONS = "registry/clickbait-model/versions/"
PRODUCTION = "registry/clickbait-model/aliases/production.json"


@dataclass(frozen=True)
class Grant:
    """A role, on all objects or on some."""

    role: str
    where: str
    """`everywhere`, `versions` (below VERSIONS alone), `elsewhere` (anywhere but there) or `training` (nor on
    PRODUCTION either).
    """

    def allows(self, permission: str, name: str) -> bool:
        """Whether the grant holds for a permission on an object; a list is asked of the bucket, so of no
        name.
        """
        inside = name.startswith(VERSIONS)
        holds = {
            "everywhere": True,
            "versions": inside,
            "elsewhere": not inside,
            "training": not inside and name != PRODUCTION,
        }
        return permission in ROLES[self.role] and holds[self.where]


def grants(member: str, bucket: str) -> list[Grant]:
    """What cluster/terraform/iam.tf gives to `member` (the part of its local after the dot: `train`, `serve`)
    on a bucket.
    """
    with (ROOT / "cluster" / "terraform" / "iam.tf").open(encoding="utf-8") as file:
        (locals_,) = hcl2.load(file)["locals"]
    found = []
    for grant in locals_["bucket_roles"].values():
        plain = {key: str(value).strip('"') for key, value in grant.items()}
        if re.search(rf"\b{member}\b", plain["member"]) and plain["bucket"] == bucket:
            found.append(Grant(plain["role"], plain.get("where", "everywhere")))
    return found


@dataclass
class Proxy:
    """A running proxy."""

    url: str
    refused: list[str] = field(default_factory=list)
    """Permissions that were asked for and refused, with the object."""
    used: set[str] = field(default_factory=set)
    """Permissions that were asked for and granted."""


def permission(method: str, path: str, exists: Any) -> tuple[list[str], str]:
    """What a request of the JSON or the XML API asks for, and of which object."""
    parts = urllib.parse.urlsplit(path)
    query = urllib.parse.parse_qs(parts.query)
    if match := re.fullmatch(
        r"(?:/upload|/resumable/upload|/download)?/storage/v1/b(?:/([^/]+)(?:/(o)(?:/(.+))?)?)?", parts.path
    ):
        bucket, objects, name = match[1], match[2], urllib.parse.unquote(match[3] or "")
        if not objects:
            return [
                {
                    "GET": "storage.buckets.get" if bucket else "storage.buckets.list",
                    "POST": "storage.buckets.create",
                }.get(method, "?")
            ], ""
        if "upload" in parts.path:
            name = name or query.get("name", [""])[0]
            if "upload_id" in query:
                return [], ""  # the start of the upload was judged
        elif not name and method == "GET":
            return ["storage.objects.list"], ""
        if method in ("POST", "PUT"):
            return [
                "storage.objects.create",
                *(["storage.objects.delete"] if exists(bucket, name) else []),
            ], name
        return [
            {
                "GET": "storage.objects.get",
                "DELETE": "storage.objects.delete",
                "PATCH": "storage.objects.update",
            }[method]
        ], name
    match = re.fullmatch(r"/([^/]+)/(.+)", parts.path)  # a download by the XML API
    assert match, path
    name = urllib.parse.unquote(match[2])
    if method in ("POST", "PUT"):
        return [
            "storage.objects.create",
            *(["storage.objects.delete"] if exists(match[1], name) else []),
        ], name
    return ["storage.objects.get"], name


@contextlib.contextmanager
def guarding(server: str, allowed: list[Grant]) -> Iterator[Proxy]:
    """A proxy before the server at the URL `server`; both clients (google-cloud-storage, pyarrow) are pointed
    at it meanwhile.
    """
    upstream = urllib.parse.urlsplit(server)

    def ask(
        method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(upstream.hostname or "", upstream.port, timeout=30)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def exists(bucket: str, name: str) -> bool:
        return (
            bool(name)
            and ask("GET", f"/storage/v1/b/{bucket}/o/{urllib.parse.quote(name, safe='')}", None, {})[0]
            == 200
        )

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self._body()
            wanted, name = permission(self.command, self.path, exists)
            if self.command == "POST" and not name and "multipart" in self.headers.get("content-type", ""):
                found = re.search(rb'"name":\s*"([^"]+)"', body)
                name = found[1].decode() if found else ""
                bucket = self.path.split("/b/")[1].split("/")[0]
                wanted = [
                    "storage.objects.create",
                    *(["storage.objects.delete"] if exists(bucket, name) else []),
                ]
            lacking = [one for one in wanted if not any(grant.allows(one, name) for grant in allowed)]
            if lacking:
                # Google's Python client asks for the bucket beside its work, for its traces, and goes on
                # without: that needs no right.
                if not (
                    lacking == ["storage.buckets.get"]
                    and self.headers.get("user-agent", "").startswith("gcloud-python")
                ):
                    proxy.refused.append(f"{lacking[0]} {name}".strip())
                text = b'{"error": {"code": 403, "message": "does not have %s access"}}' % lacking[0].encode()
                self._answer(403, [("content-type", "application/json")], text)
                return
            proxy.used.update(wanted)
            headers = {
                key: value
                for key, value in self.headers.items()
                if key.lower() not in ("host", "transfer-encoding", "content-length")
            }
            status, answered, text = ask(self.command, self.path, body, {**headers, "host": upstream.netloc})
            text = text.replace(server.encode(), proxy.url.encode())
            keep = [
                (key, value.replace(server, proxy.url))
                for key, value in answered
                if key.lower() not in ("content-length", "transfer-encoding", "connection")
            ]
            self._answer(status, keep, text)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = handle_any

        def _body(self) -> bytes:
            if self.headers.get("transfer-encoding", "").lower() == "chunked":
                pieces = []
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    pieces.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(pieces)
            return self.rfile.read(int(self.headers.get("content-length") or 0))

        def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response(status)
            for key, value in headers:
                self.send_header(key, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    before = os.environ.get("STORAGE_EMULATOR_HOST")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        proxy = Proxy(f"http://127.0.0.1:{listener.server_port}")
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        os.environ["STORAGE_EMULATOR_HOST"] = proxy.url
        try:
            yield proxy
        finally:
            listener.shutdown()
            os.environ.pop("STORAGE_EMULATOR_HOST")
            if before is not None:
                os.environ["STORAGE_EMULATOR_HOST"] = before
