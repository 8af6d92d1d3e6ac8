"""The HTTP api over a real, tiny model: what it answers, what it refuses and how, and that its OpenAPI page
says so.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import SecretStr
from starlette.testclient import TestClient

from clickbait.errors import BundleError, Overloaded, RequestError, UnknownModel
from clickbait.registry.registry import Registry
from serve.core.engine import Answer
from serve.core.metrics import Metrics
from serve.core.service import Service
from serve.http.api import STATUS, create_app
from serve.settings import Settings, load
from tests.tiny import tiny_bundle

SECRET = "abracadabra"  # in what is sent, never in what comes back as an error
JSON = {"content-type": "application/json"}
ONE, MANY = "/classify", "/classify/batch"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("registry")
    registry = Registry(str(folder / "registry"))
    registry.set_alias(registry.publish(tiny_bundle(folder / "draft")), "production")
    return str(folder / "registry")


@pytest.fixture(scope="module")
def settings(registry: str) -> Settings:
    # The poll's jitter would be drawn beside hypothesis, which minds.
    return load(registry=registry, max_body_bytes=20_000, max_texts=20, max_characters=100, poll_s=0)


class Client:
    """Sends a request and holds every answer against the OpenAPI page: its status is documented and its body
    fits the schema.
    """

    def __init__(self, client: TestClient) -> None:
        self._client = client
        self.page = client.get("/openapi.json").json()

    def __call__(self, method: str, path: str, **more: Any) -> Any:
        answer = self._client.request(method, path, **more)
        operation = self._operation(method, path)
        if operation is not None:
            responses = operation["responses"]
            assert str(answer.status_code) in responses, (
                f"{method} {path} answers {answer.status_code}, which is not documented"
            )
            content = responses[str(answer.status_code)]["content"]
            kind = answer.headers["content-type"].partition(";")[0]
            if kind == "application/json":
                jsonschema.validate(
                    answer.json(), {**content[kind]["schema"], "components": self.page["components"]}
                )
            assert kind in content
        if answer.status_code >= 400 and method != "HEAD":
            assert answer.json().keys() == {"error", "error_type", "request_id"}
            assert answer.headers["content-type"] == "application/json"
            assert answer.json()["request_id"] == answer.headers["x-request-id"]
            assert "\n" not in answer.json()["error"]
            assert SECRET not in answer.text
        return answer

    def _operation(self, method: str, path: str) -> Any:
        """What the page says of it, the names in its path filled in."""
        for template, operations in self.page["paths"].items():
            if re.fullmatch(re.sub(r"{\w+}", "[^/]+", template), path):
                return operations.get(method.lower())
        return None

    def post(self, path: str, body: Any, **headers: str) -> Any:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self("POST", path, content=content, headers={**JSON, **headers})


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[Client]:
    service = Service(settings)
    service.load()
    with TestClient(create_app(service, settings), raise_server_exceptions=False) as client:
        yield Client(client)


class Stub(Service):
    """A service that is ready and raises what it is told to."""

    def __init__(self, raised: Exception) -> None:
        self._raised = raised
        self.metrics = Metrics()

    ready = True  # type: ignore[assignment]
    version = "v1"  # type: ignore[assignment]

    async def score(self, texts: list[str], deadline: float, *, version: str | None = None) -> Answer:
        raise self._raised

    def start(self) -> None:
        pass

    def summary(self) -> dict[str, Any]:
        raise self._raised

    async def close(self) -> None:
        pass


def stubbed(raised: Exception, settings: Settings) -> Client:
    return Client(TestClient(create_app(Stub(raised), settings), raise_server_exceptions=False))


def test_one_headline(client: Client) -> None:
    answer = client.post(ONE, {"text": "You won! The secret trick"})
    assert answer.status_code == 200
    assert answer.json().keys() == {"label", "score", "model"}
    assert answer.json()["label"] == "clickbait"
    assert answer.json()["model"] == "v1"


def test_a_batch_answers_as_its_parts_do(client: Client) -> None:
    texts = ["you won", "council approves budget", "the secret of seven", "ü 字 \U0001f600", "you won"]
    answer = client.post(MANY, {"texts": texts})
    assert answer.status_code == 200
    singles = [client.post(ONE, {"text": text}).json() for text in texts]
    for together, alone in zip(answer.json()["results"], singles, strict=True):
        assert together["label"] == alone["label"]
        assert together["score"] == pytest.approx(alone["score"], abs=1e-6)


def test_the_other_routes(client: Client) -> None:
    assert client("GET", "/").json()["status"] == "ready"
    assert client("GET", "/healthz").json()["status"] == "alive"
    assert client("GET", "/readyz").status_code == 200
    page = client("GET", "/docs")
    assert page.status_code == 200
    assert "http://" not in page.text
    assert "https://" not in page.text
    assets = re.findall(r'(?:src|href)="(/[^"]+)"', page.text)
    assert len(assets) == 3, assets
    for asset in assets:
        assert client("GET", asset).status_code == 200
    summary = client("GET", "/model").json()
    assert {
        "version": "v1",
        "synthetic": True,
        "decision": "promoted",
        "runtime": "int8",
        "base_model": "tiny",
    }.items() <= summary.items()


@pytest.mark.parametrize(("kind", "status"), STATUS.items())
def test_the_error_table(settings: Settings, kind: type[Exception], status: int) -> None:
    path = "/v2/models/a/infer" if kind is UnknownModel else ONE
    keyed = settings.model_copy(update={"api_keys": SecretStr("open-sesame")})
    answer = stubbed(kind("what to do"), keyed).post(path, {"text": SECRET}, **{"x-api-key": "open-sesame"})
    assert (answer.status_code, answer.json()["error"], answer.json()["error_type"]) == (
        status,
        "what to do",
        kind.__name__,
    )
    assert ("retry-after" in answer.headers) == (status in (429, 503))
    assert ("www-authenticate" in answer.headers) == (status == 401)


@pytest.mark.parametrize(("known", "expected"), [(0, "2"), (1, "2"), (7, "7")])
def test_retry_after_is_what_the_queue_needs_and_never_less_than_the_setting(
    settings: Settings, known: int, expected: str
) -> None:
    full = stubbed(Overloaded("full", retry_after_s=known), settings.model_copy(update={"retry_after_s": 2}))
    assert full.post(ONE, {"text": SECRET}).headers["retry-after"] == expected


def test_every_error_of_a_request_has_a_status() -> None:
    def below(kind: type[Exception]) -> set[type[Exception]]:
        return {kind}.union(*map(below, kind.__subclasses__()))

    assert below(RequestError) - {RequestError} <= STATUS.keys()


@pytest.mark.parametrize(
    "raised", [ZeroDivisionError(SECRET), BundleError(f"/a/path/{SECRET}"), RequestError(SECRET)]
)
@pytest.mark.parametrize(("method", "path"), [("POST", ONE), ("GET", "/model")])
def test_anything_else_is_a_500_without_detail(
    settings: Settings, raised: Exception, method: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = stubbed(raised, settings)(
        method, path, content=b'{"text": "a"}', headers={**JSON, "x-request-id": "abc"}
    )
    assert (answer.status_code, answer.json()["error_type"]) == (500, "InternalError")
    assert "request abc failed" in caplog.text  # with its traceback, for who runs the server
    assert SECRET in caplog.text


def test_nothing_is_ready_until_a_model_is_loaded(settings: Settings) -> None:
    service = Service(settings)
    with TestClient(create_app(service, settings)) as plain:
        client = Client(plain)
        assert client("GET", "/healthz").status_code == 200
        assert client("GET", "/").json()["status"] == "not ready"
        for method, path in (("GET", "/readyz"), ("GET", "/model"), ("POST", ONE)):
            answer = client(method, path, content=b'{"text": "a"}', headers=JSON)
            assert (answer.status_code, answer.json()["error_type"]) == (503, "NotReady")
        service.load()
        assert client("GET", "/readyz").status_code == 200
        assert client.post(ONE, {"text": "a"}).status_code == 200
    assert not service.ready  # the lifespan closed it
    assert Client(plain)("GET", "/readyz").status_code == 503


HOSTILE = {
    "a lone surrogate": (b'{"text": "\\ud800 abracadabra"}', 400),
    "a lone surrogate in UTF-8": (b'{"text": "\xed\xa0\x80 abracadabra"}', 400),
    "bytes that are not UTF-8": (b'{"text": "\xff abracadabra"}', 400),
    "UTF-16": ('{"text": "abracadabra"}'.encode("utf-16"), 400),
    "NaN": (b'{"text": NaN}', 400),
    "a number beyond floats": (b'{"text": 1e999}', 400),
    "a number of 9999 digits": (b'{"text": ' + b"9" * 9999 + b"}", 400),
    "NUL alone": (b'{"text": "\\u0000"}', 422),
    "a raw control character": (b'{"text": "\x01"}', 400),
    "nested": (b'{"text": ' + b"[" * 9000 + b"]" * 9000 + b"}", 400),
    "nested and never closed": (b"[" * 19_000, 400),
    "a key twice": (b'{"text": "a", "text": "abracadabra"}', 400),
    "a key twice, once escaped": (b'{"text": "a", "te\\u0078t": "abracadabra"}', 400),
    "a key twice, nesting hidden": (b'{"text": ' + b"[" * 1000 + b"]" * 1000 + b', "text": "a"}', 400),
    "a key twice, a long number hidden": (b'{"text": ' + b"9" * 9999 + b', "text": "a"}', 400),
    "a key twice, keys hidden": (b'{"text": {"a": 1, "b": 2}, "text": "a"}', 400),
    "an unknown key": (b'{"text": "a", "abracadabra": 1}', 400),
    "another key": (b'{"abracadabra": "a"}', 400),
    "a case of its own": (b'{"Text": "a"}', 400),
    "null": (b'{"text": null}', 400),
    "a number": (b'{"text": 5}', 400),
    "a list": (b'{"text": ["abracadabra"]}', 400),
    "an object": (b'{"text": {"text": "abracadabra"}}', 400),
    "no object": (b'["abracadabra"]', 400),
    "a string": (b'"text"', 400),
    "nothing": (b"", 400),
    "blanks": (b"   ", 400),
    "half": (b'{"text": "abracad', 400),
    "two": (b'{"text": "a"}{"text": "b"}', 400),
    "a comment": (b'{"text": "a" /* abracadabra */}', 400),
    "an empty text": (b'{"text": ""}', 422),
    "a blank text": (b'{"text": " \\t\\n\\u00a0\\u200b\\ufeff"}', 422),
    "a text that is too long": (json.dumps({"text": SECRET * 10}).encode(), 422),
    "a body that is too long": (json.dumps({"text": SECRET * 2000}).encode(), 413),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bodies(client: Client, name: str) -> None:
    body, status = HOSTILE[name]
    assert client.post(ONE, body).status_code == status
    assert client.post(MANY, body).status_code == (413 if status == 413 else 400)


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"texts": []}, 422, "InvalidText"),
        ({"texts": ["a"] * 20}, 200, None),
        ({"texts": ["a"] * 21}, 422, "TooManyTexts"),
        ({"texts": ["a", ""]}, 422, "InvalidText"),
        ({"texts": ["a", "x" * 101]}, 422, "InvalidText"),
        ({"texts": ["a", 1]}, 400, "BadRequest"),
        ({"texts": ["a", None]}, 400, "BadRequest"),
        ({"texts": "a"}, 400, "BadRequest"),
        ({"texts": [["a"]]}, 400, "BadRequest"),
        ({"texts": {"0": "a"}}, 400, "BadRequest"),
        ({"text": "a"}, 400, "BadRequest"),
        ({"texts": ["a"], "text": "a"}, 400, "BadRequest"),
    ],
)
def test_batches(client: Client, body: Any, status: int, kind: str | None) -> None:
    answer = client.post(MANY, body)
    assert (answer.status_code, answer.json().get("error_type")) == (status, kind)


def test_a_bad_text_is_named_by_its_place(client: Client) -> None:
    assert "texts[2]" in client.post(MANY, {"texts": ["a", "b", " ", "c"]}).json()["error"]


def test_length_is_counted_after_cleaning(client: Client) -> None:
    assert client.post(ONE, {"text": "x" * 100 + " \u200b\t" * 50}).status_code == 200
    refused = client.post(ONE, {"text": "x" * 101})
    assert refused.status_code == 422
    assert "100" in refused.json()["error"]  # names the bound


def test_a_colon_in_a_headline_is_no_second_key(client: Client) -> None:
    assert client.post(ONE, {"text": 'live: the "text": of 12:30'}).status_code == 200
    assert client.post(MANY, {"texts": ["a: b", '{"texts": 1, "x": 2}']}).status_code == 200


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=120),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["text", "texts", "other"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@hypothesis_settings(max_examples=150, deadline=None)
@given(
    path=st.sampled_from([ONE, MANY]),
    body=st.binary(max_size=60) | _VALUES.map(lambda value: json.dumps(value).encode()),
)
def test_any_body_is_answered_as_documented(client: Client, path: str, body: bytes) -> None:
    assert client.post(path, body).status_code in (200, 400, 422)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "application/json"}, 200),
        ({"content-type": "Application/JSON; charset=UTF-8"}, 200),
        ({"content-type": 'application/json;charset="utf-8"'}, 200),
        ({"content-type": "application/json;charset=utf8"}, 200),
        ({"content-type": "application/json; odata=verbose; charset=UTF-8"}, 200),
        ({"content-type": 'application/json; profile="a;charset=latin-1"'}, 200),
        ({"content-type": " application/json\t;\tcharset=utf-8 ;"}, 200),
        ({"content-type": "application/json; charset=latin-1"}, 415),
        ({"content-type": "application/json; charset="}, 415),
        ({"content-type": "application/json; odata=verbose; charset=utf-16"}, 415),
        ({"content-type": "application/json; charset=utf-8; charset=latin-1"}, 415),
        ({"content-type": "application/json, text/plain"}, 415),
        ({"content-type": "application/jsonp; charset=utf-8"}, 415),
        ({"content-type": "=?utf-8?q?application/json?="}, 415),
        ({"content-type": ";"}, 415),
        ({"content-type": "application/json" + ";a=b" * 15_000}, 415),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "abracadabra"}, 415),
        ({}, 415),
        ({**JSON, "content-encoding": "gzip"}, 415),
        ({**JSON, "content-encoding": "identity"}, 200),
    ],
)
def test_content_types(client: Client, headers: dict[str, str], status: int) -> None:
    assert client("POST", ONE, content=b'{"text": "a"}', headers=headers).status_code == status


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", ONE, 405, "MethodNotAllowed"),
        ("PUT", MANY, 405, "MethodNotAllowed"),
        ("OPTIONS", ONE, 405, "MethodNotAllowed"),
        ("POST", "/model", 405, "MethodNotAllowed"),
        ("GET", f"/{SECRET}", 404, "NotFound"),
        ("POST", f"{ONE}/", 404, "NotFound"),
        ("GET", "/docs/oauth2-redirect", 404, "NotFound"),
    ],
)
def test_routes_that_are_not_there(client: Client, method: str, path: str, status: int, kind: str) -> None:
    answer = client(method, path)
    assert (answer.status_code, answer.json()["error_type"]) == (status, kind)
    assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/healthz",
        "/readyz",
        "/model",
        "/metrics",
        "/docs",
        "/openapi.json",
        "/v2",
        "/v2/health/live",
        "/v2/models/clickbait-model",
        "/v2/models/clickbait-model/ready",
        "/nowhere",
        "/v2/models/other",
        ONE,
    ],
)
def test_head_answers_as_get_does_without_the_body(client: Client, path: str) -> None:
    got, head = client("GET", path), client("HEAD", path)
    assert head.status_code == got.status_code
    assert head.content == b""
    assert head.headers["x-request-id"]
    # it has counted one more
    varies = {"x-request-id", "content-length"} if path == "/metrics" else {"x-request-id"}
    assert {name: head.headers[name] for name in head.headers if name not in varies} == {
        name: got.headers[name] for name in got.headers if name not in varies
    }
    assert int(head.headers["content-length"]) > 0


def test_what_takes_get_says_that_it_takes_head(client: Client) -> None:
    assert client("POST", "/model").headers["allow"] == "GET, HEAD"
    assert client("PUT", "/").headers["allow"] == "GET, HEAD, POST"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("a-B_9.z", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("a b", False),
        ("a\tb", False),
        ("<b>", False),
        ("é", False),
        ("", False),
    ],
)
@pytest.mark.parametrize("path", ["/", "/nowhere"])
def test_request_ids(client: Client, path: str, given: str, kept: bool) -> None:
    answer = client("GET", path, headers={"x-request-id": given.encode("latin-1")})
    assert (answer.headers["x-request-id"] == given) == kept
    assert answer.headers.get_list("x-request-id") == [answer.headers["x-request-id"]]
    assert client("GET", path).headers["x-request-id"] != answer.headers["x-request-id"]  # one each


def test_the_page_documents_what_the_table_holds(client: Client, settings: Settings) -> None:
    told = {"200", "500", *map(str, STATUS.values())}
    for path, operations in client.page["paths"].items():
        if "post" not in operations:
            continue
        operation = operations["post"]
        assert operation["responses"].keys() == told - {"401"} - ({"404"} if "{name}" not in path else set())
        body = operation["requestBody"]["content"]["application/json"]
        jsonschema.Draft202012Validator.check_schema(body["schema"])
        jsonschema.validate(body["example"], body["schema"])
        path = path.replace("{name}", "clickbait-model").replace("{version}", "v1")
        assert client.post(path, body["example"]).status_code == 200
    texts = client.page["paths"][MANY]["post"]["requestBody"]["content"]["application/json"]["schema"][
        "properties"
    ]["texts"]
    assert texts["maxItems"] == settings.max_texts
    gets = {"/", "/healthz", "/readyz", "/model", "/metrics", "/v2", "/v2/health/live", "/v2/health/ready"}
    of_model = {
        f"/v2/models/{{name}}{version}{end}"
        for version in ("", "/versions/{version}")
        for end in ("", "/ready", "/infer")
    }
    assert set(client.page["paths"]) == {ONE, MANY, "/predict", "/explain"} | gets | of_model
    ids = [
        operation["operationId"] for routes in client.page["paths"].values() for operation in routes.values()
    ]
    assert len(ids) == len(set(ids))


# What TestClient cannot do: a body in pieces, a client that goes, two requests at a time.


def scope(path: str, **headers: str) -> dict[str, Any]:
    raw = [
        (name.replace("_", "-").encode(), value.encode())
        for name, value in {"content_type": "application/json", **headers}.items()
    ]
    return {
        "type": "http",
        "method": "POST",
        "path": path,
        "headers": raw,
        "query_string": b"",
        "scheme": "http",
        "server": ("x", 80),
    }


class Call:
    """One request at the ASGI interface; `feed` sends it a message."""

    def __init__(self, app: Any, path: str = ONE, **headers: str) -> None:
        self.sent: list[Any] = []
        self.received = 0
        self._inbox: asyncio.Queue[Any] = asyncio.Queue()
        self.task = asyncio.ensure_future(app(scope(path, **headers), self._receive, self._send))

    def feed(self, body: bytes = b"", *, more: bool = False, gone: bool = False) -> None:
        self._inbox.put_nowait(
            {"type": "http.disconnect"} if gone else {"type": "http.request", "body": body, "more_body": more}
        )

    async def _receive(self) -> Any:
        message = await self._inbox.get()
        self.received += len(message.get("body", b""))
        return message

    async def _send(self, message: Any) -> None:
        self.sent.append(message)

    async def status(self) -> int:
        await self.task
        return int(self.sent[0]["status"]) if self.sent else 0


class Gate:
    """An engine that holds its thread until it is opened; keeps the real one's results. `computed` has the
    first word of each text.
    """

    def __init__(self, service: Service) -> None:
        assert service._main.engine is not None
        self._words = service._main.engine.scorer._words._tokenizer.id_to_token
        self.batcher = service._main.engine._batcher
        self.batcher._inline_s = 0.0  # on its thread, always: the loop must go on while it is held
        self.computed: list[str] = []
        self._real, self.batcher._score = self.batcher._score, self
        self.open = threading.Semaphore(0)

    def __call__(self, texts: list[list[int]]) -> Any:
        self.computed += [self._words(tokens[1]) for tokens in texts]
        assert self.open.acquire(timeout=60)
        return self._real(texts)


async def until(condition: Any) -> None:
    while not condition():  # noqa: ASYNC110  # what it waits for is on another thread
        await asyncio.sleep(0)


def loaded(settings: Settings, **limits: Any) -> tuple[Any, Service]:
    settings = settings.model_copy(update=limits)
    service = Service(settings)
    service.load()
    return create_app(service, settings), service


def test_a_body_in_pieces_is_refused_at_its_bound_and_not_read_further(settings: Settings) -> None:
    async def scenario() -> None:
        app, service = loaded(settings)
        small = Call(app)
        for piece in (b'{"te', b'xt": "a', b"", b'bc"}'):
            small.feed(piece, more=True)
        small.feed()
        assert await small.status() == 200
        large = Call(app)
        for _ in range(1000):
            large.feed(b"x" * 1000, more=True)
        assert await large.status() == 413
        assert large.received <= settings.max_body_bytes + 1000
        declared = Call(app, content_length=str(settings.max_body_bytes + 1))
        assert await declared.status() == 413
        assert declared.received == 0
        absurd = Call(app, content_length="9" * 5000)
        assert await absurd.status() == 413
        await service.close()

    asyncio.run(scenario())


def test_a_body_that_does_not_come_is_a_504(settings: Settings) -> None:
    async def scenario() -> None:
        app, service = loaded(settings, timeout_s=0.01)
        slow = Call(app)
        slow.feed(b'{"text"', more=True)
        assert await slow.status() == 504
        await service.close()

    asyncio.run(scenario())


def test_a_full_queue_is_a_429_and_a_client_that_goes_is_not_computed(settings: Settings) -> None:
    async def scenario() -> None:
        app, service = loaded(settings, max_waiting=1, timeout_s=60.0)
        gate = Gate(service)
        first = Call(app)
        first.feed(b'{"text": "seven"}')
        await until(lambda: gate.computed)
        second = Call(app)
        second.feed(b'{"text": "one"}')
        await until(lambda: gate.batcher.waiting == 1)
        third = Call(app)
        third.feed(b'{"text": "a"}')
        assert await third.status() == 429
        assert dict(third.sent[0]["headers"])[b"retry-after"] == b"1"
        second.feed(gone=True)
        assert await second.status() == 0
        fourth = Call(app)
        fourth.feed(b'{"text": "two"}')
        gate.open.release(2)
        assert await first.status() == 200
        assert await fourth.status() == 200
        assert gate.computed == ["seven", "two"]
        half = Call(app)
        half.feed(b'{"te', more=True)
        half.feed(gone=True)
        assert await half.status() == 0
        cut = Call(app)
        await asyncio.sleep(0)
        cut.task.cancel()  # the server ends
        with pytest.raises(asyncio.CancelledError):
            await cut.status()
        text = service.metrics.render().decode()
        assert 'clickbait_unanswered_total{outcome="client_gone",route="/classify"} 2.0' in text
        assert 'clickbait_unanswered_total{outcome="cancelled",route="/classify"} 1.0' in text
        await service.close()

    asyncio.run(scenario())


def test_a_batch_that_cannot_be_answered_in_time_is_a_429_before_it_is_tokenized(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        app, service = loaded(settings, max_texts=256, timeout_s=60.0)
        gate = Gate(service)
        batch = json.dumps({"texts": ["seven words of one secret in two"] * 100}).encode()
        first = Call(app, path="/classify/batch")
        first.feed(batch)
        await until(lambda: gate.computed)
        gate.batcher._full_token_s = 60.0  # by this measure the first one takes hours

        def never(texts: list[str]) -> list[list[int]]:
            raise AssertionError("tokenized")

        monkeypatch.setattr(service._main.engine.scorer, "encode", never)  # type: ignore[union-attr]
        second = Call(app, path="/classify/batch")
        second.feed(batch)
        assert await second.status() == 429
        assert (
            dict(second.sent[0]["headers"])[b"retry-after"] == b"60"
        )  # timeout_s: by then all that waits now is answered or late
        gate.open.release(1000)
        assert await first.status() == 200
        await service.close()

    asyncio.run(scenario())


def test_an_infer_request_for_a_version_is_not_answered_by_the_one_after_it(
    settings: Settings, tmp_path: Path
) -> None:
    registry = Registry(str(tmp_path / "registry"))
    for number in range(2):
        registry.publish(tiny_bundle(tmp_path / f"draft{number}", temperature=1.0 + number))
    registry.set_alias("v1", "production")
    body = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [100], "data": ["seven"] * 100}]}

    async def scenario() -> None:
        app, service = loaded(settings, registry=str(tmp_path / "registry"), max_texts=100)
        assert service._main.engine is not None
        encode, swapped = service._main.engine.scorer.encode, threading.Event()
        service._main.engine.scorer.encode = lambda texts: swapped.wait(60) and encode(texts)  # type: ignore[method-assign]
        pinned, free = (
            Call(app, path=f"/v2/models/clickbait-model{version}/infer") for version in ("/versions/v1", "")
        )
        for call in (pinned, free):
            call.feed(json.dumps(body).encode())
        await asyncio.sleep(0)
        registry.set_alias("v2", "production")
        await service._main.look()
        swapped.set()
        assert (await pinned.status(), await free.status()) == (404, 200)
        assert json.loads(free.sent[1]["body"])["model_version"] == "v2"
        await service.close()

    asyncio.run(scenario())


def test_a_request_that_waits_too_long_is_a_504(settings: Settings) -> None:
    async def scenario() -> None:
        app, service = loaded(settings, timeout_s=0.05)
        gate = Gate(service)
        late = Call(app)
        late.feed(b'{"text": "a"}')
        assert await late.status() == 504
        gate.open.release()
        await service.close()

    asyncio.run(scenario())


def test_under_ray_the_id_is_in_the_body_and_ray_sends_the_header(settings: Settings) -> None:
    app = create_app(Service(settings), settings, under_ray=True)
    answer = TestClient(app).get("/nowhere", headers={"x-request-id": "from-ray"})
    assert answer.json()["request_id"] == "from-ray"
    assert "x-request-id" not in answer.headers


def test_a_model_that_gives_no_numbers_is_not_served(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clickbait.inference.scorer.Scorer._run", lambda self, ids: [float("nan")] * len(ids))
    service = Service(settings)
    with pytest.raises(BundleError, match="not numbers"):
        service.load()
    assert not service.ready
