"""Requests past Ray: counted as Ray counts, refused when there are too many, and Ray's own still go Ray's
way.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve._private import replica as ray_replica
from ray.serve._private.http_util import (
    RequestIdMiddleware,
    parse_disconnect_disabled_header,
    parse_request_timeout_header,
)
from ray.serve._private.utils import call_function_from_import_path

from serve.http.parsing import TOLD
from serve.http.protocol import PUBLIC_APIS_ONLY
from serve.on_ray import ingress, ray_private


class Books:
    """Ray's ReplicaMetricsManager, as far as it is used."""

    def __init__(self) -> None:
        self.ongoing = 0
        self.most = 0
        self.requests: list[dict[str, Any]] = []
        self.ingress: list[dict[str, Any]] = []

    def inc_num_ongoing_requests(self, metadata: Any) -> None:
        assert metadata.is_direct_ingress
        assert metadata.is_http_request
        self.ongoing += 1
        self.most = max(self.most, self.ongoing)

    def dec_num_ongoing_requests(self, metadata: Any) -> None:
        self.ongoing -= 1

    def get_num_ongoing_requests(self) -> int:
        return self.ongoing

    def record_request_metrics(self, **given: Any) -> None:
        self.requests.append(given)

    def record_ingress_request_metrics(self, **given: Any) -> None:
        self.ingress.append(given)


class Replica:
    """Ray's, with an application that notes what it is asked and does what a test wants."""

    _route_prefix = "/"
    _shutting_down = False

    def __init__(self, does: Any = None) -> None:
        self._deployment_id = SimpleNamespace(app_name="clickbait", name="Classifier")
        self._user_callable_wrapper = SimpleNamespace(_run_user_code_in_separate_thread=False)
        self._metrics_manager = Books()
        self._user_callable_asgi_app = self._application
        self.max_ongoing_requests = 2
        self.asked: list[Any] = []
        self.rays: list[Any] = []
        self._does = does

    async def _application(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked.append(scope)
        if self._does:
            await self._does()
        scope[TOLD].route, scope[TOLD].status = "/classify", 200

    async def _direct_ingress_asgi(self, scope: Any, receive: Any, send: Any) -> None:
        self.rays.append(scope)


def server(replica: Replica) -> Any:
    """What Ray makes of the middleware."""
    (middleware,) = call_function_from_import_path(
        ingress.ENVIRONMENT["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"]
    )
    return middleware.cls(RequestIdMiddleware(replica._direct_ingress_asgi))


def request(path: str = "/classify", **more: Any) -> dict[str, Any]:
    return {"type": "http", "method": "POST", "path": path, "headers": [(b"host", b"here")], **more}


def test_a_request_goes_to_the_application_and_is_in_rays_books() -> None:
    replica = Replica()
    asyncio.run(server(replica)(request(), None, None))
    assert len(replica.asked) == 1
    assert not replica.rays
    books = replica._metrics_manager
    assert (books.most, books.ongoing) == (1, 0)
    assert [(given["route"], given["is_error"]) for given in books.requests] == [("/classify", False)]
    (told,) = books.ingress
    assert (told["route"], told["method"], told["status_code"], told["is_error"]) == (
        "/classify",
        "POST",
        "200",
        False,
    )
    assert (told["app_name"], told["deployment_name"]) == ("clickbait", "Classifier")
    assert 0 <= told["latency_ms"] < 10_000


@pytest.mark.parametrize("path", ["/classify", "/-/routes"])
def test_an_invented_method_makes_no_label(path: str) -> None:
    """Nor on Ray's way, where Ray makes one of the scope's method."""
    replica = Replica()
    app = server(replica)
    for method in ("PROPFIND", "M-SEARCH", "POST"):
        asyncio.run(app(request(path, method=method), None, None))
    counted = [told["method"] for told in replica._metrics_manager.ingress] + [
        scope["method"] for scope in replica.rays
    ]
    assert counted == ["other", "other", "POST"]


@pytest.mark.parametrize("error", [RuntimeError("half an answer is out"), asyncio.CancelledError()])
def test_what_the_application_raises_leaves_no_request_in_the_books(error: BaseException) -> None:
    async def fails() -> None:
        raise error

    replica = Replica(fails)
    with pytest.raises(type(error)):
        asyncio.run(server(replica)(request(), None, None))
    assert replica._metrics_manager.ongoing == 0
    assert [given["status_code"] for given in replica._metrics_manager.ingress] == ["499"]


def test_beyond_what_the_replica_may_have_the_application_is_told_to_refuse() -> None:
    async def main() -> list[bool]:
        gate = asyncio.Event()
        replica = Replica(gate.wait)
        app = server(replica)
        tasks = [asyncio.create_task(app(request(), None, None)) for _ in range(3)]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(*tasks)
        return [scope[TOLD].full for scope in replica.asked]

    assert asyncio.run(main()) == [False, False, True]


@pytest.mark.parametrize(
    ("host", "machines", "told"),
    [
        ("127.0.0.1", 2, True),
        ("localhost", 2, True),
        ("::1", 2, True),
        ("127.0.0.1", 1, False),
        ("0.0.0.0", 2, False),
        ("a.name", 2, False),
    ],
)
def test_a_replica_that_other_machines_cannot_reach_says_so(
    host: str, machines: int, told: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ingress, "_machines", lambda: machines)
    replica = Replica()
    replica._http_options = SimpleNamespace(host=host)  # type: ignore[attr-defined]
    server(replica)
    assert ("0.0.0.0" in caplog.text) == told


def test_the_installed_ray_says_where_a_replica_listens() -> None:
    source = inspect.getsource(ray_replica.Replica)
    assert source.index("self._http_options, self._grpc_options") < source.index(
        "async def start_http_server"
    )


@pytest.mark.parametrize("path", ["/-/healthz", "/-/routes"])
def test_rays_own_routes_are_rays(path: str) -> None:
    replica = Replica()
    asyncio.run(server(replica)(request(path), None, None))
    assert len(replica.rays) == 1
    assert not replica.asked


def test_below_a_prefix_the_application_has_it_as_its_root_and_beside_it_ray_answers() -> None:
    replica = Replica()
    replica._route_prefix = "/news"
    app = server(replica)
    asyncio.run(app(request("/news/classify"), None, None))
    assert replica.asked[0]["root_path"] == "/news"
    asyncio.run(app(request("/classify"), None, None))
    assert len(replica.rays) == 1


@pytest.mark.parametrize(
    "sent", [[], [(b"x-request-disconnect-disabled", b"?0"), (b"x-request-timeout-seconds", b"3")]]
)
def test_on_rays_way_ray_leaves_deadlines_and_clients_that_go_to_the_application(
    sent: list[tuple[bytes, bytes]],
) -> None:
    replica = Replica()
    replica._user_callable_wrapper = SimpleNamespace(_run_user_code_in_separate_thread=True)
    given = [(b"host", b"here"), *sent]
    asyncio.run(server(replica)(request(headers=given), None, None))
    headers = dict(replica.rays[0]["headers"])
    assert headers[b"host"] == b"here"
    assert parse_disconnect_disabled_header(headers)
    assert parse_request_timeout_header(headers, 10.0) is None
    assert len(given) == 1 + len(sent), "the server's own list is left as it is"


def lose_a_method(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    del replica._metrics_manager


def another_version(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_private.ray, "__version__", "2.61.0")


def a_moved_import(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray.serve._private.common", None)


def a_moved_name(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("ray.serve._private.common.RequestProtocol")


def another_signature(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Books, "record_request_metrics", lambda self, route, seconds: None)


def another_constructor(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.serve._private.common.RequestMetadata", lambda request_id: None)


@pytest.mark.parametrize(
    "surprise",
    [lose_a_method, another_version, a_moved_import, a_moved_name, another_signature, another_constructor],
)
def test_another_ray_is_served_by_its_public_way_after_one_warning(
    surprise: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The fakes keep one property of a Ray of another version: what differs from the known one."""
    replica = Replica()
    surprise(replica, monkeypatch)
    app = server(replica)
    for _ in range(3):
        asyncio.run(app(request(), None, None))
    assert len(replica.rays) == 3
    assert not replica.asked
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "slower" in caplog.text


@pytest.mark.parametrize("method", ["get_num_ongoing_requests", "record_ingress_request_metrics"])
def test_a_surprise_while_serving_costs_no_answer(
    method: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(self: Books, **_: Any) -> None:
        raise AttributeError("moved")

    replica = Replica()
    app = server(replica)
    monkeypatch.setattr(Books, method, fails)
    for _ in range(3):
        asyncio.run(app(request(), None, None))
    assert len(replica.asked) + len(replica.rays) == 3
    assert len(replica.rays) >= 2
    assert replica._metrics_manager.ongoing == 0
    assert len(caplog.records) == 1


def test_public_apis_only_is_a_choice_and_no_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(PUBLIC_APIS_ONLY, "1")
    replica = Replica()
    asyncio.run(server(replica)(request(), None, None))
    assert len(replica.rays) == 1
    assert not caplog.text


def test_without_private_parts_there_is_no_shared_port_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(PUBLIC_APIS_ONLY, "1")
    ingress.share("127.0.0.1", 8001, "ours", 75)
    server(Replica())
    assert "no shared port" in caplog.text
    assert not ingress._shared


def test_the_installed_ray_has_all_that_is_used() -> None:
    """Else every request takes the slow way, and a test of speed would be needed to see it."""
    assert ray_private.ray.__version__ == ray_private.RAY
    source = inspect.getsource(ray_replica.Replica)
    for name in ray_private.Replica.__annotations__:
        assert f"self.{name}" in source or hasattr(ray_replica.Replica, name), name
    replica = Replica()
    asyncio.run(server(replica)(request(), None, None))
    books = replica._metrics_manager
    for method, arguments in ray_private.METRICS_METHODS.items():
        parameters = inspect.signature(getattr(ray_replica.ReplicaMetricsManager, method)).parameters
        assert set(arguments) == set(parameters) - {"self"}
    assert set(books.requests[0]) == set(ray_private.METRICS_METHODS["record_request_metrics"])
    assert set(books.ingress[0]) == set(ray_private.METRICS_METHODS["record_ingress_request_metrics"])
    assert "_run_user_code_in_separate_thread" in inspect.getsource(ray_replica.UserCallableWrapper)


def test_every_replica_loads_it() -> None:
    import yaml

    from serve.app import Classifier
    from tests.conftest import ROOT

    document = yaml.safe_load((ROOT / "configs" / "serve.yaml").read_text(encoding="utf-8"))
    (deployment,) = document["applications"][0]["deployments"]
    assert deployment["ray_actor_options"]["runtime_env"]["env_vars"] == ingress.ENVIRONMENT
    assert Classifier.ray_actor_options["runtime_env"]["env_vars"] == ingress.ENVIRONMENT  # type: ignore[attr-defined]


def test_a_shared_port_that_fails_is_in_the_log_and_comes_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    starts: list[str] = []

    async def serve(*_: Any) -> None:
        starts.append("started")
        if len(starts) == 1:
            raise OSError("no more files")

    monkeypatch.setattr("serve.on_ray.ingress.shared_port.serve", serve)
    monkeypatch.setattr("serve.core.background._AGAIN_S", 0.0)

    async def scenario() -> None:
        ingress.share("127.0.0.1", 8001, "ours", 75)
        server(Replica())
        await ingress._background.finish()

    asyncio.run(scenario())
    assert len(starts) == 2
    assert "no more files" in caplog.text
