"""Ray understands what the middleware asks of it, whatever the client asked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from ray.serve._private.http_util import parse_disconnect_disabled_header, parse_request_timeout_header
from ray.serve._private.utils import call_function_from_import_path

from serve import ingress


@pytest.mark.parametrize("sent", [[], [(b"x-request-disconnect-disabled", b"?0"), (b"x-request-timeout-seconds", b"3")]])
def test_ray_leaves_deadlines_and_clients_that_go_to_the_application(sent: list[tuple[bytes, bytes]]) -> None:
    seen: list[dict[bytes, bytes]] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        seen.append(dict(scope["headers"]))

    path = ingress.ENVIRONMENT["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"]
    (middleware,) = call_function_from_import_path(path)
    app = middleware.cls(application)
    given = [(b"host", b"here"), *sent]
    asyncio.run(app({"type": "http", "headers": given}, None, None))
    assert seen[0][b"host"] == b"here"
    assert parse_disconnect_disabled_header(seen[0])
    assert parse_request_timeout_header(seen[0], 10.0) is None
    assert len(given) == 1 + len(sent), "the server's own list is left as it is"


def test_every_replica_loads_it() -> None:
    import yaml

    from serve.app import Classifier
    from tests.conftest import ROOT

    document = yaml.safe_load((ROOT / "configs" / "serve.yaml").read_text(encoding="utf-8"))
    (deployment,) = document["applications"][0]["deployments"]
    assert deployment["ray_actor_options"]["runtime_env"]["env_vars"] == ingress.ENVIRONMENT
    assert Classifier.ray_actor_options["runtime_env"]["env_vars"] == ingress.ENVIRONMENT
