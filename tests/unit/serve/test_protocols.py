"""The other protocols over a real, tiny model: Hugging Face's client and Triton's against a real server,
explanations, keys, metrics.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import tritonclient.http as triton
import uvicorn
from huggingface_hub import InferenceClient
from pydantic import SecretStr
from starlette.testclient import TestClient
from tritonclient.utils import InferenceServerException

from clickbait.registry.registry import Registry
from serve.core.service import Service
from serve.http.api import STATUS, create_app
from serve.settings import Settings, load
from tests.tiny import tiny_bundle

NAME = "clickbait-model"
INFER = f"/v2/models/{NAME}/infer"
TEXTS = [
    "You won! The secret trick",
    "council approves budget",
    "seven reasons you won",
    "ü 字 \U0001f600",
    "the market: “a” report",
]
KEYS = "first-key, schlüssel,,third"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("registry")
    registry = Registry(str(folder / "registry"))
    registry.set_alias(registry.publish(tiny_bundle(folder / "draft", default_runtime="fp32")), "production")
    return str(folder / "registry")


@pytest.fixture(scope="module")
def settings(registry: str) -> Settings:
    return load(registry=registry, max_texts=20, max_words=10, max_characters=200)


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[TestClient]:
    with asked(settings) as client:
        yield client


@contextmanager
def asked(settings: Settings) -> Iterator[TestClient]:
    service = Service(settings)
    service.load()
    with TestClient(create_app(service, settings), raise_server_exceptions=False) as client:
        yield client


@contextmanager
def served(settings: Settings) -> Iterator[str]:
    """A real server on loopback; the url."""
    service = Service(settings)
    service.load()
    bound = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(service, settings), log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run, args=([bound],))
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        bound.close()


@pytest.fixture(scope="module")
def url(settings: Settings) -> Iterator[str]:
    with served(settings) as url:
        yield url


@pytest.fixture(scope="module")
def scores(client: TestClient) -> list[float]:
    """Of `TEXTS`, one by one."""
    return [client.post("/classify", json={"text": text}).json()["score"] for text in TEXTS]


def test_a_batch_of_any_route_answers_as_single_requests_do(client: TestClient, scores: list[float]) -> None:
    batch = [
        result["score"] for result in client.post("/classify/batch", json={"texts": TEXTS}).json()["results"]
    ]
    ranked = client.post("/predict", json={"inputs": TEXTS}).json()
    predicted = [next(one["score"] for one in labels if one["label"] == "clickbait") for labels in ranked]
    tensor = {"name": "text", "datatype": "BYTES", "shape": [len(TEXTS)], "data": TEXTS}
    inferred = client.post(INFER, json={"inputs": [tensor]}).json()["outputs"][0]["data"]
    assert len(set(scores)) > 3
    for together in (batch, predicted, inferred):
        assert together == pytest.approx(scores, abs=1e-5)


# Hugging Face


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite keeps the library from the hub; this server is not the hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.mark.parametrize("path", ["", "/", "/predict"])
def test_huggingface_hub_classifies_with_its_own_client(
    online: None, url: str, scores: list[float], path: str
) -> None:
    client = InferenceClient(url + path)
    found = client.text_classification(TEXTS[0])
    assert [one.label for one in found] == ["clickbait", "news"]  # by score
    assert found[0].score == pytest.approx(scores[0], abs=1e-5)
    assert found[0].score + found[1].score == pytest.approx(1.0)
    assert [one.label for one in client.text_classification(TEXTS[1])] == ["news", "clickbait"]
    assert len(client.text_classification(TEXTS[0], top_k=1)) == 1
    assert len(client.text_classification(TEXTS[0], top_k=9, function_to_apply="softmax")) == 2


def test_huggingface_hub_sends_its_key(online: None, settings: Settings) -> None:
    with served(keyed(settings)) as url:
        assert InferenceClient(base_url=url, api_key="third").text_classification(TEXTS[0])
        with pytest.raises(Exception, match="401"):
            InferenceClient(base_url=url, api_key="fourth").text_classification(TEXTS[0])


@pytest.mark.parametrize(
    ("body", "depth"),
    [
        ({"inputs": "you won"}, 1),
        ({"inputs": "you won", "truncate": True, "raw_scores": False}, 1),
        ({"inputs": "you won", "truncate": True, "truncation_direction": "Right"}, 1),
        ({"inputs": "you won", "truncation_direction": "right"}, 1),
        ({"inputs": "you won", "truncation_direction": None}, 1),
        ({"inputs": "you won", "parameters": {}}, 2),
        ({"inputs": ["you won"]}, 2),
        ({"inputs": ["you won", "budget"]}, 2),
        ({"inputs": [["you won"], ["budget"]]}, 2),
    ],
)
def test_predict_answers_in_text_embeddings_inference_s_form(
    client: TestClient, body: Any, depth: int
) -> None:
    answer = client.post("/predict", json=body).json()
    assert client.post("/", json=body).json() == (answer if depth == 2 else [answer])
    texts = answer if depth == 2 else [answer]
    assert len(texts) == (1 if depth == 1 or isinstance(body["inputs"], str) else len(body["inputs"]))
    for labels in texts:
        assert {one["label"] for one in labels} == {"news", "clickbait"}
        assert labels[0]["score"] >= labels[1]["score"]


@pytest.mark.parametrize(
    "more",
    [
        {"raw_scores": True},
        {"truncate": "yes"},
        {"truncation_direction": "Left"},
        {"truncation_direction": ["Right"]},
        {"parameters": []},
        {"parameters": {"top_k": 0}},
        {"parameters": {"top_k": True}},
        {"parameters": {"top_k": 1.0}},
        {"parameters": {"function_to_apply": "sigmoid"}},
        {"parameters": {"other": 1}},
        {"inputs": [["you", "won"]]},
        {"inputs": [[]]},
        {"inputs": {"text": "a"}},
        {"inputs": [["you"], 1]},
        {"other": 1},
    ],
)
def test_what_predict_does_not_do_is_a_400(client: TestClient, more: dict[str, Any]) -> None:
    answer = client.post("/predict", json={"inputs": "you won", **more})
    assert (answer.status_code, answer.json()["error_type"]) == (400, "BadRequest")


# The inference protocol


@pytest.fixture
def of_triton(url: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(url.removeprefix("http://")) as client:
        yield client


def tensor(texts: list[str], shape: list[int] | None = None, *, binary: bool) -> triton.InferInput:
    shape = shape or [len(texts)]
    values = np.array([text.encode() for text in texts], dtype=np.object_).reshape(shape)
    made = triton.InferInput("text", shape, "BYTES")
    made.set_data_from_numpy(values, binary_data=binary)
    return made


def test_triton_s_client_finds_the_server_and_the_model(of_triton: triton.InferenceServerClient) -> None:
    assert of_triton.is_server_live()
    assert of_triton.is_server_ready()
    assert of_triton.is_model_ready(NAME)
    assert of_triton.is_model_ready(NAME, "v1")
    assert not of_triton.is_model_ready(NAME, "v2")
    assert not of_triton.is_model_ready("other")
    assert "binary_tensor_data" in of_triton.get_server_metadata()["extensions"]
    told = of_triton.get_model_metadata(NAME)
    assert told == of_triton.get_model_metadata(NAME, "v1")
    assert (told["name"], told["versions"]) == (NAME, ["v1"])
    assert {(one["name"], one["datatype"]) for one in told["inputs"] + told["outputs"]} == {
        ("text", "BYTES"),
        ("score", "FP32"),
        ("label", "BYTES"),
    }


@pytest.mark.parametrize("sent_binary", [True, False])
@pytest.mark.parametrize("asked_binary", [True, False, None])
@pytest.mark.parametrize("columns", [[], [1]])
@pytest.mark.parametrize("version", ["", "v1"])
def test_triton_s_client_infers(
    of_triton: triton.InferenceServerClient,
    scores: list[float],
    sent_binary: bool,
    asked_binary: bool | None,
    columns: list[int],
    version: str,
) -> None:
    outputs = (
        None
        if asked_binary is None
        else [triton.InferRequestedOutput(name, asked_binary) for name in ("label", "score")]
    )
    given = [tensor(TEXTS, [len(TEXTS), *columns], binary=sent_binary)]
    answer = of_triton.infer(NAME, given, version, outputs, request_id="of-mine")
    found = answer.as_numpy("score")
    assert found.dtype == np.float32
    assert found.shape == (len(TEXTS),)
    assert found.tolist() == pytest.approx(scores, abs=1e-5)
    labels = [label.decode() if isinstance(label, bytes) else label for label in answer.as_numpy("label")]
    assert labels == ["clickbait" if score >= 0.5 else "news" for score in scores]
    assert (answer.get_response()["model_version"], answer.get_response()["id"]) == ("v1", "of-mine")


def test_triton_s_client_gets_what_it_asks_for_each_in_its_form(
    of_triton: triton.InferenceServerClient,
) -> None:
    asked = [
        triton.InferRequestedOutput("label", binary_data=False),
        triton.InferRequestedOutput("score", binary_data=True),
    ]
    answer = of_triton.infer(NAME, [tensor(TEXTS[:1], binary=True)], outputs=asked)
    assert [("data" in output, output["name"]) for output in answer.get_response()["outputs"]] == [
        (True, "label"),
        (False, "score"),
    ]
    (one,) = of_triton.infer(NAME, [tensor(TEXTS[:1], binary=True)], outputs=asked[1:]).get_response()[
        "outputs"
    ]
    assert one["name"] == "score"


@pytest.mark.parametrize(
    ("name", "version", "status"), [("other", "", "404"), (NAME, "v2", "404"), (NAME, "1", "404")]
)
def test_triton_s_client_is_told_of_a_model_that_is_not_served(
    of_triton: triton.InferenceServerClient, name: str, version: str, status: str
) -> None:
    with pytest.raises(InferenceServerException, match="GET /model") as raised:
        of_triton.infer(name, [tensor(TEXTS, binary=True)], version)
    assert raised.value.status() == status
    with pytest.raises(InferenceServerException, match="GET /model"):
        of_triton.get_model_metadata(name, version)


def packed(*texts: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


@pytest.mark.parametrize(
    ("change", "binary", "status"),
    [
        ({}, packed(b"you", b"won"), 200),
        ({}, packed(b"you"), 400),  # one where the shape has two
        ({}, packed(b"you", b"won", b"a"), 400),
        ({}, packed(b"you", b"won") + b"\0\0", 400),
        ({}, packed(b"you", b"won")[:-1], 400),
        ({}, struct.pack("<I", 2**32 - 1) + b"you", 400),
        ({}, packed(b"you", b"\xff"), 400),
        ({}, packed(b"you", b"\xed\xa0\x80"), 400),  # a lone surrogate
        ({}, packed(b"you", b""), 422),
        ({"parameters": {"binary_data_size": 1}}, packed(b"you", b"won"), 400),
        ({"parameters": {"binary_data_size": -1}}, packed(b"you", b"won"), 400),
        ({"parameters": {"binary_data_size": True}}, b"a", 400),
        ({"parameters": {}}, packed(b"you", b"won"), 400),
        ({"parameters": {"binary_data_size": 14}, "data": ["you", "won"]}, packed(b"you", b"won"), 400),
        ({"shape": [20_000], "parameters": {"binary_data_size": 80_000}}, b"\0" * 80_000, 422),
        ({"shape": [10**30]}, packed(b"you", b"won"), 400),
        ({"shape": []}, packed(b"you", b"won"), 400),
        ({"shape": [2, 2]}, packed(b"you", b"won"), 400),
        ({"shape": [2, 1, 1]}, packed(b"you", b"won"), 400),
        ({"shape": [2.0]}, packed(b"you", b"won"), 400),
        ({"shape": [True]}, packed(b"you"), 400),
        ({"shape": [-2]}, packed(b"you", b"won"), 400),
        ({"shape": [0]}, b"", 422),
        ({"datatype": "FP32"}, packed(b"you", b"won"), 400),
        ({"name": "other"}, packed(b"you", b"won"), 400),
    ],
)
def test_binary_tensors(client: TestClient, change: dict[str, Any], binary: bytes, status: int) -> None:
    given = {
        "name": "text",
        "datatype": "BYTES",
        "shape": [2],
        "parameters": {"binary_data_size": len(binary)},
        **change,
    }
    head = orjson.dumps({"inputs": [{**given, "shape": None}]}).replace(
        b"null", str(given["shape"]).lower().encode()
    )
    answer = client.post(
        INFER, content=head + binary, headers={"inference-header-content-length": str(len(head))}
    )
    assert answer.status_code == status, answer.text


@pytest.mark.parametrize("length", ["", "-1", "x", "1", "99999999", "9" * 5000, "\uff11"])
def test_a_wrong_length_of_the_header_is_a_400(client: TestClient, length: str) -> None:
    answer = client.post(
        INFER, content=b'{"inputs": []}', headers={"inference-header-content-length": length.encode()}
    )  # type: ignore[dict-item]
    assert (answer.status_code, answer.json()["error_type"]) == (400, "BadRequest")


@pytest.mark.parametrize(
    "more",
    [
        {"id": 1},
        {"parameters": []},
        {"parameters": {"binary_data_output": 1}},
        {"outputs": "score"},
        {"outputs": {}},
        {"outputs": [{"name": "other"}]},
        {"outputs": [{"name": ["score"]}]},
        {"outputs": ["score"]},
        {"outputs": [{"name": "score"}, {"name": "score"}]},
        {"outputs": [{"name": "score", "parameters": {"classification": 1}}]},
        {"outputs": [{"name": "score", "parameters": {"binary_data": 1}}]},
        {"outputs": [{"name": "score", "parameters": []}]},
        {"inputs": []},
        {"inputs": {}},
        {"inputs": ["text"]},
        {"output": []},
    ],
)
def test_what_infer_does_not_do_is_a_400(client: TestClient, more: dict[str, Any]) -> None:
    body = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["you"]}], **more}
    answer = client.post(INFER, json=body)
    assert (answer.status_code, answer.json()["error_type"]) == (400, "BadRequest")


# Explanations


def test_an_explanation_is_the_difference_that_each_word_makes(client: TestClient) -> None:
    text = "  You won\tthe council\u200b \u200b budget "
    told = client.post("/explain", json={"text": text}).json()
    whole = client.post("/classify", json={"text": text}).json()
    assert {key: told[key] for key in whole} == whole
    assert [word["word"] for word in told["words"]] == [
        "You",
        "won",
        "the",
        "council\u200b",
        "budget",
    ]  # no word of a mark alone
    for word in told["words"]:
        start, end = word["start"], word["end"]
        assert text[start:end] == word["word"]
        without = client.post("/classify", json={"text": text[:start] + text[end:]}).json()["score"]
        assert word["weight"] == pytest.approx(whole["score"] - without, abs=1e-5)
    weights = {word["word"]: word["weight"] for word in told["words"]}
    assert weights["won"] > 0.05
    assert weights["budget"] < -0.05


def test_one_word_is_explained_against_no_text_at_all(client: TestClient) -> None:
    (word,) = client.post("/explain", json={"text": "secret"}).json()["words"]
    assert word["weight"] > 0.0


def test_too_many_words_are_refused(client: TestClient) -> None:
    assert client.post("/explain", json={"text": "a " * 10}).status_code == 200
    answer = client.post("/explain", json={"text": "a " * 11})
    assert (answer.status_code, answer.json()["error_type"]) == (422, "InvalidText")
    assert "10" in answer.json()["error"]


def test_an_explanation_is_computed_in_one_request(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    score = Service.score

    async def counting(self: Service, texts: list[str], deadline: float, **given: Any) -> Any:
        calls.append(len(texts))
        return await score(self, texts, deadline, **given)

    monkeypatch.setattr(Service, "score", counting)
    with asked(settings) as client:
        client.post("/explain", json={"text": "you won the budget"})
    assert calls == [5]


# Headers, metrics, health


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/classify", {"text": "a"}),
        ("/classify/batch", {"texts": ["a"]}),
        ("/predict", {"inputs": "a"}),
        ("/explain", {"text": "a"}),
        (INFER, {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]}]}),
    ],
)
def test_an_answer_says_its_times_and_is_counted(client: TestClient, path: str, body: Any) -> None:
    route = "/v2/infer" if path == INFER else path
    line = f'clickbait_answers_total{{route="{route}",status="200"}} '
    before = client.get("/metrics").text
    answer = client.post(path, json=body, headers={"x-request-id": "of-mine"})
    times = dict(part.split(";dur=") for part in answer.headers["server-timing"].split(", "))
    assert list(times) == ["parse", "queue", "compute", "total"]
    assert all(float(value) >= 0 for value in times.values())
    assert float(times["total"]) + 0.02 >= float(times["parse"]) + float(times["queue"]) + float(
        times["compute"]
    )
    assert answer.headers["x-request-id"] == "of-mine"
    assert answer.headers["content-length"] == str(len(answer.content))

    def count(text: str) -> float:
        return float(text.split(line)[1].split("\n")[0]) if line in text else 0.0

    assert count(client.get("/metrics").text) == count(before) + 1


def test_whatever_is_asked_for_metrics_have_few_names(client: TestClient) -> None:
    for path in ("/a", "/b", "/v2/models/c", "/v2/models/d/ready", "/static-offline-docs/x", "/healthz"):
        client.get(path)
    series = len(client.get("/metrics").text.splitlines())
    for number in range(200):
        for path in (
            f"/{number}",
            f"/classify/{number}",
            f"/v2/models/{number}",
            f"/v2/models/{NAME}/versions/{number}/infer",
        ):
            client.request(f"INVENTED{number}", path, headers={"x-api-key": str(number)})
            client.post(path, json={"model_name": str(number)})
    known = ("/classify", "/v2/infer", "/v2/models", "other")
    assert len(client.get("/metrics").text.splitlines()) - series <= len(known) * len(STATUS) * 20, (
        "a series or two per route and status"
    )
    client.get("/classify")
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    routes = {
        line.split('route="')[1].split('"')[0]
        for line in answer.text.splitlines()
        if line.startswith("clickbait_answers_total")
    }
    assert routes <= {
        "/classify",
        "/classify/batch",
        "/predict",
        "/explain",
        "/v2/infer",
        "/v2/models",
        "/healthz",
        "/metrics",
        "other",
    }
    assert 'clickbait_answers_total{route="/classify",status="405"}' in answer.text


def test_the_server_follows_its_alias(settings: Settings, tmp_path: Path) -> None:
    registry = Registry(str(tmp_path / "registry"))
    registry.set_alias(registry.publish(tiny_bundle(tmp_path / "one")), "production")
    with asked(
        settings.model_copy(update={"registry": str(tmp_path / "registry"), "poll_s": 0.01})
    ) as client:
        assert client.get("/model").json()["version"] == "v1"
        registry.set_alias(registry.publish(tiny_bundle(tmp_path / "two", threshold=0.4)), "production")
        for _ in range(500):
            if client.get("/model").json()["version"] == "v2":
                break
            time.sleep(0.01)
        assert client.post("/classify", json={"text": "a"}).json()["model"] == "v2"


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz"])
@pytest.mark.parametrize("given", ["", KEYS])
def test_health_tells_a_stranger_the_state_and_who_has_a_key_the_rest(
    settings: Settings, path: str, given: str
) -> None:
    settings = settings.model_copy(update={"api_keys": SecretStr(given)})
    service = Service(settings)
    service.load()
    refused = {"version": "v3", "why": "gs://abracadabra/v3: a byte is wrong"}
    told = {"status": "ready", "model": "v1", "canary": "v2", "shadow": None, "refused": refused}
    service.health = lambda: told  # type: ignore[method-assign]
    status = "alive" if path == "/healthz" else "ready"
    with TestClient(create_app(service, settings)) as client:
        for headers in (
            {},
            {"x-api-key": "fourth"},
            {"x-api-key": ""},
            {"x-api-key": "third"} if not given else {},
        ):
            answer = client.get(path, headers=headers)
            assert answer.json().keys() == {"message", "status"}
            assert answer.json()["status"] == status
            assert "abracadabra" not in answer.text
        if given:
            known = client.get(path, headers={"x-api-key": "third"}).json()
            assert known == {**told, "status": status, "message": known["message"]}


def test_a_server_that_is_not_ready_tells_a_stranger_no_reason(settings: Settings) -> None:
    client = TestClient(
        create_app(Service(settings.model_copy(update={"registry": "gs://abracadabra"})), settings)
    )
    for path in ("/", "/healthz", "/readyz", "/model", "/v2/health/ready"):
        assert "abracadabra" not in client.get(path).text


# Keys


def keyed(settings: Settings) -> Settings:
    return settings.model_copy(update={"api_keys": SecretStr(KEYS)})


@pytest.fixture(scope="module")
def locked(settings: Settings) -> Iterator[TestClient]:
    with asked(keyed(settings)) as client:
        yield client


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer first-key"}, 200),
        ({"authorization": "bearer  third "}, 200),
        ({"authorization": "Bearer schlüssel".encode()}, 200),
        ({"x-api-key": "third"}, 200),
        ({"x-api-key": "schlüssel".encode()}, 200),
        ({"x-api-key": b"\xff\xfe\x80"}, 401),
        ({"x-api-key": "first-key", "authorization": "Basic abracadabra"}, 200),
        ({"authorization": "first-key"}, 401),
        ({"authorization": "Basic first-key"}, 401),
        ({"authorization": "Bearer"}, 401),
        ({"authorization": "Bearer "}, 401),
        ({"authorization": "Bearer first-ke"}, 401),
        ({"authorization": "Bearer first-keys"}, 401),
        ({"authorization": f"Bearer {KEYS}".encode()}, 401),
        ({"x-api-key": ""}, 401),
        ({"x-api-key": "First-key"}, 401),
    ],
)
@pytest.mark.parametrize(("method", "path"), [("POST", "/classify"), ("GET", "/model")])
def test_keys(locked: TestClient, headers: dict[str, Any], status: int, method: str, path: str) -> None:
    sent = {"content-type": "application/json", **headers}
    answer = locked.request(method, path, content=b'{"text": "you won"}', headers=sent)
    assert answer.status_code == status
    if status == 401:
        assert answer.json()["error_type"] == "Unauthorized"
        assert answer.headers["www-authenticate"].startswith("Bearer ")
        assert "first" not in answer.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("GET", "/healthz", 200),
        ("GET", "/readyz", 200),
        ("GET", "/docs", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/v2/health/live", 200),
        ("GET", "/v2/health/ready", 200),
        ("GET", f"/v2/models/{NAME}/ready", 200),
        ("GET", f"/v2/models/{NAME}/versions/v1/ready", 200),
        ("GET", "/nowhere", 404),
        ("GET", "/classify", 405),
        ("GET", "/model", 401),
        ("GET", "/metrics", 401),
        ("GET", "/v2", 401),
        ("GET", f"/v2/models/{NAME}", 401),
        ("GET", f"/v2/models/{NAME}/versions/v1", 401),
        ("POST", "/", 401),
        ("POST", "/classify", 401),
        ("POST", "/classify/batch", 401),
        ("POST", "/predict", 401),
        ("POST", "/explain", 401),
        ("POST", INFER, 401),
        ("POST", f"/v2/models/{NAME}/versions/v1/infer", 401),
    ],
)
def test_what_is_open_and_what_wants_a_key(
    locked: TestClient, client: TestClient, method: str, path: str, status: int
) -> None:
    assert locked.request(method, path).status_code == status
    assert client.request(method, path).status_code != 401


def test_every_key_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    from serve.http import keys

    compared: list[bytes] = []
    real = keys.hmac.compare_digest
    monkeypatch.setattr(keys.hmac, "compare_digest", lambda a, b: compared.append(b) or real(a, b))
    chosen = keys.Keys(load(api_keys="one,two,three"))
    chosen.check({b"x-api-key": b"one"})  # the first is right, and the others are compared all the same
    assert len(set(compared)) == 3


def test_no_key_set_asks_for_none(settings: Settings) -> None:
    with asked(settings) as client:
        assert client.get("/model").status_code == 200
        assert "securitySchemes" not in client.get("/openapi.json").json()["components"]


def test_a_request_that_names_a_version_is_answered_by_it_whatever_the_canarys_share(tmp_path: Path) -> None:
    versions = Registry(str(tmp_path / "registry"))
    for alias, temperature in (("production", 1.0), ("canary", 3.0)):
        versions.set_alias(versions.publish(tiny_bundle(tmp_path / alias, temperature=temperature)), alias)
    body = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": TEXTS[:1]}]}
    with asked(load(registry=str(tmp_path / "registry"), canary="canary", canary_share=1.0)) as client:
        for path, version in ((INFER, "v2"), (f"/v2/models/{NAME}/versions/v1/infer", "v1")):
            answer = client.post(path, json=body)
            assert (answer.status_code, answer.json()["model_version"]) == (200, version), answer.text
