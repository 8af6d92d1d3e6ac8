"""A stand-in for the Terraform providers that cannot be downloaded here: their schemas, and no cloud.

It keeps of the real ones what `terraform validate` and `terraform test` with `mock_provider` ask: the name,
the type, and whether it is required, of every attribute and block (provider_schema.json). It finds no fault
with any value, and creates nothing. Terraform attaches to it by TF_REATTACH_PROVIDERS instead of starting a
binary (https://developer.hashicorp.com/terraform/plugin/debugging). The few messages it needs of Terraform's
plugin protocol 6 (tfplugin6.proto) are written out by hand below.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

SCHEMAS = Path(__file__).parent / "provider_schema.json"
Json = dict[str, Any]
# The providers' own settings, as far as versions.tf uses them; the bindings describe these less well.
OWN: dict[str, Json] = {
    "google": {
        "attributes": {"project": ["string", "optional"], "region": ["string", "optional"]},
        "blocks": {},
    },
    "helm": {
        "attributes": {"kubernetes": [["object", {"host": "string", "token": "string"}], "optional"]},
        "blocks": {},
    },
}
_LIST = 2  # NestingMode


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _field(number: int, value: bytes | str | int | bool) -> bytes:
    """One field of a protobuf message."""
    if isinstance(value, (int, bool)):
        return _varint(number << 3) + _varint(int(value))
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _block(block: Json) -> bytes:
    """Schema.Block."""
    out = b""
    for name, (type_, needed) in sorted(block["attributes"].items()):
        flags = (
            _field(4, True)
            if needed == "required"
            else _field(6, True) + (_field(5, True) if needed == "optional" else b"")
        )
        out += _field(2, _field(1, name) + _field(2, json.dumps(type_)) + flags)
    for name, nested in sorted(block["blocks"].items()):
        bounds = (_field(4, 1) if nested["required"] else b"") + (_field(5, 1) if nested["single"] else b"")
        out += _field(3, _field(1, name) + _field(2, _block(nested["block"])) + _field(3, _LIST) + bounds)
    return out


def _schema(block: Json) -> bytes:
    return _field(2, _block(block))


def _all(name: str, schemas: Json) -> bytes:
    """GetProviderSchema.Response."""
    out = _field(1, _schema(OWN[name]))
    for kind, block in sorted(schemas.items()):
        which, type_ = kind.split()
        out += _field(2 if which == "resource" else 3, _field(1, type_) + _field(2, _schema(block)))
    return out


class _Provider(grpc.GenericRpcHandler):
    def __init__(self, schema: bytes) -> None:
        self._schema = schema

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        service, _, method = handler_call_details.method.strip("/").rpartition("/")
        if service == "tfplugin6.Provider" and (
            method == "GetProviderSchema" or method.startswith("Validate")
        ):
            answer = self._schema if method == "GetProviderSchema" else b""  # nothing to object to
            return grpc.unary_unary_rpc_method_handler(lambda request, context: answer)
        return None


@contextmanager
def served(folder: Path) -> Iterator[dict[str, str]]:
    """The providers on sockets in `folder`, and the variables with which terraform uses them."""
    attach, servers = {}, []
    for name, schemas in json.loads(SCHEMAS.read_text(encoding="utf-8"))["schemas"].items():
        server = grpc.server(ThreadPoolExecutor(4))
        server.add_generic_rpc_handlers((_Provider(_all(name, schemas)),))
        address = str(folder / f"{name}.sock")
        server.add_insecure_port(f"unix:{address}")
        server.start()
        servers.append(server)
        where = {"Network": "unix", "String": address}
        attach[f"hashicorp/{name}"] = {
            "Protocol": "grpc",
            "ProtocolVersion": 6,
            "Pid": os.getpid(),
            "Test": True,
            "Addr": where,
        }
    try:
        yield {"TF_REATTACH_PROVIDERS": json.dumps(attach)}
    finally:
        for server in servers:
            server.stop(0)
