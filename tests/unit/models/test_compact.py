"""The compact models: folding and padding change no logit, the hash sees order, a student starts as its
teacher.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    MPNetConfig,
    MPNetForSequenceClassification,
)

from clickbait.config import TrainConfig
from clickbait.errors import ModelError
from clickbait.models import compact, weight_transfer
from clickbait.models import load as modeling
from clickbait.pretrained import locate
from clickbait.training import export

TOKENIZER = locate.file(locate.OFFLINE, "tokenizer.json").read_bytes()
IDS = torch.tensor([[101, 2017, 2180, 2102, 2903, 102], [101, 4311, 102, 0, 0, 0]])
MASK = (IDS > 0).long()
SHAPES = [
    {"model": locate.NGRAMS, "hidden": 16, "buckets": 512},
    {"model": "scratch:transformer", "hidden": 32, "layers": 2},
    {"model": "scratch:transformer", "hidden": 32, "layers": 1, "buckets": 512},
]


def load(**fields: Any) -> Any:
    return modeling.load(TrainConfig(**fields), TOKENIZER, max_tokens=64).eval()


@torch.no_grad()
def logits(model: Any, ids: torch.Tensor = IDS) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=ids, attention_mask=(ids > 0).long()).logits
    return found


@pytest.mark.parametrize("shape", SHAPES, ids=["ngrams", "transformer", "both"])
def test_padding_changes_no_logit(shape: dict[str, Any]) -> None:
    model = load(**shape)
    torch.testing.assert_close(logits(model)[1:], logits(model, IDS[1:, :3]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[2]], ids=["ngrams", "both"])
def test_the_order_of_words_counts(shape: dict[str, Any]) -> None:
    swapped = IDS.clone()
    swapped[0, 1:3] = IDS[0, [2, 1]]
    model = load(**shape)
    assert not torch.allclose(logits(model)[0], logits(model, swapped)[0], atol=1e-6)


def test_folding_the_spelling_changes_no_logit() -> None:
    model = load(**SHAPES[0])
    before = logits(model)
    model.fold()
    torch.testing.assert_close(before, logits(model))
    assert not [name for name in model.state_dict() if "character" in name or "spelling" in name]


def test_tokens_spelt_alike_share_their_ngrams() -> None:
    table = compact.spelling({"[PAD]": 0, "believe": 1, "believes": 2, "##lieve": 3, "market": 4}, 10_000)
    rows = [set(row[row > 0].tolist()) for row in table]
    assert not rows[0], "a special token has no spelling"
    assert len(rows[1] & rows[2]) > len(rows[1]) / 2
    assert rows[1] & rows[3], "a piece that goes on a word shares its middle"
    assert not rows[1] & rows[4]


@pytest.mark.parametrize("shape", SHAPES, ids=["ngrams", "transformer", "both"])
def test_a_checkpoint_comes_back_and_goes_to_onnx(tmp_path: Path, shape: dict[str, Any]) -> None:
    import onnxruntime

    model = load(**shape)
    model.save_pretrained(tmp_path)
    again = modeling.load_checkpoint(tmp_path)
    torch.testing.assert_close(logits(model), logits(again))
    export.to_onnx(again, tmp_path / "model.onnx", 64)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(["logits"], {"input_ids": IDS.numpy(), "attention_mask": MASK.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), logits(model), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits(model), logits(again), msg="exporting changed the model")


def teacher(folder: Path, **fields: Any) -> BertForSequenceClassification:
    config = BertConfig(
        **(
            {"vocab_size": 30522, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
            | fields
        )
    )
    torch.manual_seed(1)
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(folder)
    return model


@torch.no_grad()
def test_a_student_of_all_the_layers_reads_as_its_teacher(tmp_path: Path) -> None:
    bert = teacher(tmp_path)
    student = load(model=str(tmp_path), layers=3)
    seen: list[torch.Tensor] = []
    student.encoder[-1].register_forward_hook(lambda module, given, out: seen.append(out))
    logits(student)
    expected = bert.bert(input_ids=IDS, attention_mask=MASK).last_hidden_state
    torch.testing.assert_close(seen[0], expected[:, 0], rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_a_fine_tuned_bert_is_written_anew_with_the_same_logits(tmp_path: Path) -> None:
    bert = teacher(tmp_path)
    written = weight_transfer.convert(bert, max_tokens=8)
    assert written is not None
    torch.testing.assert_close(logits(written), logits(bert), rtol=1e-4, atol=1e-6)
    assert weight_transfer.convert(teacher(tmp_path, hidden_act="relu"), max_tokens=8) is None, (
        "another activation: not the same function"
    )


@torch.no_grad()
def test_a_fine_tuned_mpnet_is_written_anew_with_the_same_logits() -> None:
    torch.manual_seed(2)
    config = MPNetConfig(
        vocab_size=500, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    mpnet = MPNetForSequenceClassification(config).eval()
    mpnet.mpnet.encoder.relative_attention_bias.weight.mul_(50)  # grown large enough to be seen
    written = weight_transfer.convert(mpnet, max_tokens=40)
    assert written is not None
    ids = torch.randint(4, 500, (3, 40))
    mask = torch.arange(40) < torch.tensor([[40], [7], [1]])
    ids = torch.where(mask, ids, 1)
    found = written(input_ids=ids, attention_mask=mask.long()).logits
    torch.testing.assert_close(
        found, mpnet(input_ids=ids, attention_mask=mask.long()).logits, rtol=1e-4, atol=1e-6
    )


def test_a_student_of_fewer_layers_takes_the_first(tmp_path: Path) -> None:
    bert = teacher(tmp_path, num_hidden_layers=4)
    student = load(model=str(tmp_path), layers=2)
    for mine, index in zip(student.encoder, (0, 1), strict=True):
        torch.testing.assert_close(mine.up.weight, bert.bert.encoder.layer[index].intermediate.dense.weight)


@torch.no_grad()
def test_a_student_of_fewer_neurons_takes_the_strongest(tmp_path: Path) -> None:
    bert = teacher(tmp_path, intermediate_size=64)
    strong = [3, 17, 60]
    for layer in bert.bert.encoder.layer:
        layer.intermediate.dense.weight[strong] *= 100
    bert.save_pretrained(tmp_path)
    student = load(model=str(tmp_path), layers=1, intermediate=16)
    theirs = bert.bert.encoder.layer[0]
    rows = [
        (theirs.intermediate.dense.weight == row).all(1).nonzero().item()
        for row in student.encoder[0].up.weight
    ]
    assert set(strong) <= set(rows)
    torch.testing.assert_close(student.encoder[0].down.weight, theirs.output.dense.weight[:, rows])


@torch.no_grad()
def test_a_narrow_student_keeps_which_tokens_are_alike(tmp_path: Path) -> None:
    bert = teacher(tmp_path)
    words = bert.bert.embeddings.word_embeddings.weight
    words[2001] = words[2000] + 0.001
    bert.save_pretrained(tmp_path)
    tokens = load(model=str(tmp_path), hidden=16, layers=1).tokens.weight
    near, far = (tokens[2000] - tokens[2001]).norm(), (tokens[2000] - tokens[2002]).norm()
    assert near < 0.1 * far


def test_what_cannot_be_cut_down_is_one_clear_line(tmp_path: Path) -> None:
    teacher(tmp_path / "bert")
    other = DistilBertConfig(vocab_size=30522, dim=32, n_layers=1, n_heads=2, hidden_dim=64)
    DistilBertForSequenceClassification(other).save_pretrained(tmp_path / "distilbert")
    teacher(tmp_path / "words", vocab_size=100)
    for fields, told in [
        ({"model": str(tmp_path / "distilbert"), "layers": 1}, '"distilbert", which cannot be cut down'),
        ({"model": str(tmp_path / "bert"), "layers": 9}, "the model has only 3, but 9 are needed"),
        (
            {"model": str(tmp_path / "bert"), "layers": 1, "intermediate": 9000},
            "the model has only 3072, but 9000 are needed",
        ),
        ({"model": str(tmp_path / "words"), "layers": 1}, "preprocess with this model"),
        ({"model": locate.NGRAMS, "layers": 1}, "has no layers"),
        ({"model": "scratch:transformer", "hidden": 100}, "take a multiple of 32"),
    ]:
        with pytest.raises(ModelError, match=told):
            load(**fields)
    with pytest.raises(ModelError, match="scratch:ngrams, scratch:transformer"):
        locate.locate("scratch:ngram")
