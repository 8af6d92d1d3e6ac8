"""What each client that docs/http.md names sends, byte for byte, and the form of the answer that it reads.

huggingface_hub and tritonclient are installed here, and are tried themselves in test_protocols.
@huggingface/inference is tried itself after `npm ci --prefix tests/clients`. KServe's client (kserve 0.21)
wants other versions than ours of what it is built on: what it sends is held here. What Java's HttpClient
sends, which needs a JDK, is held in test_protocol.
"""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from serve.settings import Settings
from tests.conftest import ROOT
from tests.unit.serve.test_protocols import INFER, NAME, asked, registry, served, settings

__all__ = ["registry", "settings"]  # fixtures

TEXT = "You won! The secret trick"
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[TestClient]:
    with asked(settings) as client:
        yield client


def is_ranked(labels: Any, count: int = 2) -> bool:
    """Whether it is a list of labels, the likelier first, as every Hugging Face client reads it."""
    return (
        len(labels) == count
        and all(one.keys() == {"label", "score"} and isinstance(one["score"], float) for one in labels)
        and [one["score"] for one in labels] == sorted((one["score"] for one in labels), reverse=True)
        and labels[0]["label"] == "clickbait"
    )


@pytest.mark.parametrize(
    ("path", "body", "headers", "nested", "count"),
    [
        # huggingface_hub 1.x: InferenceClient(url).text_classification(text)
        (
            "/",
            {"inputs": TEXT, "parameters": {}},
            {"user-agent": "unknown/None; hf_hub/1.0; python/3.11"},
            True,
            2,
        ),
        ("/predict", {"inputs": TEXT, "parameters": {"top_k": 1}}, {}, True, 1),
        # @huggingface/inference 4.13: new InferenceClient().textClassification({endpointUrl: url, inputs:
        # text})
        (
            "/",
            {"inputs": TEXT},
            {"user-agent": "@huggingface/inference/4.13.30 Node.js/20", "accept": "*/*"},
            True,
            2,
        ),
        ("/", {"inputs": TEXT, "parameters": {"top_k": 1}}, {"user-agent": "Mozilla/5.0"}, True, 1),
        # what is written for text-embeddings-inference: its README's curl, and its schema's every key
        ("/predict", {"inputs": TEXT}, {"user-agent": "curl/8"}, False, 2),
        (
            "/predict",
            {"inputs": TEXT, "raw_scores": False, "truncate": False, "truncation_direction": "Right"},
            {},
            False,
            2,
        ),
    ],
)
def test_hugging_face_s_clients(
    client: TestClient, path: str, body: Any, headers: dict[str, str], nested: bool, count: int
) -> None:
    answer = client.post(path, content=json.dumps(body), headers={**JSON, **headers})
    assert answer.status_code == 200
    found = answer.json()
    assert is_ranked(found[0] if nested else found, count)
    assert len(found) == (1 if nested else 2)


@pytest.mark.parametrize("key", ["", "a-key"])
def test_hugging_face_s_javascript_client_itself(settings: Settings, key: str) -> None:
    folder, node = ROOT / "tests" / "clients", shutil.which("node")
    if not node or not (folder / "node_modules").is_dir():
        pytest.skip("the client is not here: npm ci --prefix tests/clients")
    with served(settings.model_copy(update={"api_keys": SecretStr(key)})) as url:
        script = [node, str(folder / "huggingface.cjs"), url]
        told = subprocess.run([*script, key], capture_output=True, text=True, timeout=60, check=True)
        found = json.loads(told.stdout)
        assert is_ranked(found["plain"])
        assert is_ranked(found["first"], 1)
        if key:
            refused = subprocess.run(
                [*script, "another"], capture_output=True, text=True, timeout=60, check=False
            )
            assert refused.returncode == 1


@pytest.mark.parametrize("binary", [False, True])
def test_kserve_s_client(client: TestClient, binary: bool) -> None:
    """InferenceRESTClient(RESTConfig(protocol="v2")).infer(url, InferRequest(...), model_name=...) of kserve
    0.21.
    """
    packed = struct.pack("<I", len(TEXT)) + TEXT.encode()
    tensor = {
        "name": "text",
        "shape": [1],
        "datatype": "BYTES",
        **({"parameters": {"binary_data_size": 29}} if binary else {"data": [TEXT]}),
    }
    head = json.dumps(
        {"id": "6239c851-d092-4655-ab11-6a4f05986248", "model_name": NAME, "inputs": [tensor]}
    ).encode()
    headers = (
        {"inference-header-content-length": str(len(head)), "content-type": "application/octet-stream"}
        if binary
        else JSON
    )
    answer = client.post(INFER, content=head + packed if binary else head, headers=headers)
    assert answer.status_code == 200, answer.text
    outputs = answer.json()["outputs"]
    assert [(output["name"], output["datatype"], output["shape"]) for output in outputs] == [
        ("score", "FP32", [1]),
        ("label", "BYTES", [1]),
    ]
    assert outputs[1]["data"] == ["clickbait"]


@pytest.mark.parametrize(
    ("path", "more", "status"),
    [
        (INFER, {"model_name": NAME}, 200),
        (INFER, {"model_name": "other"}, 400),
        (INFER, {"model_name": None}, 400),
        (INFER, {"model_version": "v1"}, 400),
        (f"/v2/models/{NAME}/versions/v1/infer", {"model_name": NAME, "model_version": "v1"}, 200),
        (f"/v2/models/{NAME}/versions/v1/infer", {"model_version": "v2"}, 400),
    ],
)
def test_a_model_in_the_body_is_the_one_in_the_path(
    client: TestClient, path: str, more: dict[str, Any], status: int
) -> None:
    body = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": [TEXT]}], **more}
    assert client.post(path, json=body).status_code == status
