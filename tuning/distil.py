"""Knowledge distillation: a teacher scores headlines once, and a smaller student is trained on the scores.

    python -m tuning.distil --config configs/distil.yaml --teachers artifacts/bundle

1. Headlines: the dataset's training split, unlabelled variants of it (crossed, cut), and your own unlabelled
   headlines.
2. Soft labels: Ray Data actors score the headlines with every teacher's bundle. The mean margin is stored
   under a name made of its content (`clickbait.data.soft_labels`). A second student, or the same command
   after a kill, uses the stored margins.
3. The student: `ray_jobs.train` on the margins and the labels (Hinton et al. 2015). The run is then exported,
   evaluated and promoted like any other.

A teacher is a bundle of any encoder, with its own tokenizer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from pydantic import Field

from clickbait import cli, sample, storage
from clickbait.config import Config, PreprocessConfig, TrainConfig, Uri
from clickbait.data import soft_labels as softlabels
from clickbait.data import sources, token_ids
from clickbait.data.dataset import Dataset, open_dataset
from clickbait.data.headlines import SPLITS
from clickbait.errors import DataError
from clickbait.inference.scorer import Scorer
from clickbait.pretrained import tokenizer
from clickbait.registry import workspace
from clickbait.registry.bundle import Manifest
from clickbait.text import LABELS, clean, key
from clickbait.training import augment, tracking
from ray_jobs import train
from ray_jobs.scoring import score_texts

# The largest margin kept. A float32 probability cannot be closer to 1 than 6e-8, and a larger margin would
# teach the student nothing.
CERTAIN = 12.0


class DistilConfig(Config):
    """The settings of `tuning.distil`: teachers, headlines and the student."""

    teachers: tuple[Uri, ...] = Field(("artifacts/bundle",), min_length=1)
    """The teachers' bundles. With several teachers, the target is the mean of their margins."""
    crossed: int = Field(2, ge=0, le=100)
    """New headlines for each training headline: its beginning and the end of another one."""
    cut: int = Field(1, ge=0, le=100)
    """New headlines for each training headline: with words masked or dropped, or a part of it."""
    generated: int = Field(0, ge=0, le=10_000_000)
    """Headlines to add from the synthetic generator, without their labels."""
    unlabelled: str | None = None
    """More headlines: a path, URI, folder or glob, read as preprocess reads it; labels are ignored."""
    headline_column: str = "headline"
    """The column of the unlabelled headlines."""
    output: Uri = "artifacts/soft"
    """Folder for the soft labels."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of the variants."""
    scorers: int = Field(2, ge=0, le=10_000)
    """Ray Data actors that score; 0 scores in the driver's process."""
    threads: int = Field(1, ge=1, le=256)
    """Threads of each scoring actor."""
    train: TrainConfig = TrainConfig(name="student", layers=2, hidden=128, epochs=20, lr=1e-3, batch_size=64)
    """The student and its training. `soft_labels` is set by this command."""


def distil(config: DistilConfig) -> str:
    """Scores the headlines if necessary, trains the student, and returns the URI of its run.

    Raises:
        BundleError: a teacher's bundle is missing or incomplete.
        DataError: the dataset is missing, a teacher has other labels, or the unlabelled headlines cannot be
            read.
        ModelError: the dataset was made with another tokenizer than the student's.
    """
    dataset = open_dataset(config.train.dataset)
    dataset.check_model(config.train.model)  # fail before the teachers score
    tracking.check()
    soft = soft_labels(config, dataset)
    return train.train(config.train.model_copy(update={"dataset": dataset.uri, "soft_labels": soft}))


def soft_labels(config: DistilConfig, dataset: Dataset) -> str:
    """The URI of the soft labels, computed now or by an earlier command."""
    manifests = [_manifest(uri) for uri in config.teachers]
    unlabelled = _source(config)
    about = {
        "dataset": dataset.fingerprint,
        "teachers": [_identity(manifest) for manifest in manifests],
        "recipe": config.model_dump(mode="json", include={"crossed", "cut", "generated", "seed"}),
        "unlabelled": [] if unlabelled is None else sources.digests(sources.pieces(unlabelled)),
    }
    name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    uri = storage.join(config.output, name)
    if softlabels.sealed(uri).is_whole():
        return uri
    rows = headlines(config, dataset)
    texts: list[str] = rows["headline"].to_pylist()
    margins = np.zeros(len(texts))
    for teacher in config.teachers:
        margins += margins_of(
            score_texts(teacher, texts, num_workers=config.scorers, threads=config.threads)
        ) / len(config.teachers)
    ids, lengths = token_ids.encode(tokenizer.load(dataset.tokenizer, dataset.max_tokens), texts)
    columns = [rows["headline"], rows["label"], ids, lengths, pa.array(margins, pa.float32()), rows["origin"]]
    softlabels.write(uri, pa.table(columns, schema=softlabels.SCHEMA), about)
    return uri


def margins_of(scores: np.ndarray) -> np.ndarray:
    """The margins (log odds) of probabilities; both have shape (n,)."""
    lowest = 1.0 / (1.0 + np.exp(CERTAIN))
    scores = np.clip(scores.astype(np.float64), lowest, 1.0 - lowest)
    margins: np.ndarray = np.log(scores) - np.log1p(-scores)
    return margins


def headlines(config: DistilConfig, dataset: Dataset) -> pa.Table:
    """The headlines that the teachers score, each once: columns headline, label (-1: none), origin.

    Headlines of the validation and the test split are left out.
    """
    split = dataset.table("train", ["headline", "label"])
    texts: list[str] = split["headline"].to_pylist()
    kept = dict(zip(texts, zip(split["label"].to_pylist(), ["train"] * len(texts), strict=True), strict=True))
    known_keys = {value for name in SPLITS for value in dataset.table(name, ["key"])["key"].to_pylist()}
    for origin, text in _unlabelled(config, texts, _mask(dataset)):
        text = clean(text)
        if text and (text_key := key(text)) not in known_keys:
            known_keys.add(text_key)
            kept[text] = (-1, origin)
    labels, origins = zip(*kept.values(), strict=True)
    return pa.table(
        {
            "headline": pa.array(kept, pa.string()),
            "label": pa.array(labels, pa.int8()),
            "origin": pa.array(origins),
        }
    )


def _unlabelled(config: DistilConfig, texts: Sequence[str], mask: str) -> Iterator[tuple[str, str]]:
    """(origin, headline) of every unlabelled headline. Depends on `config` and `texts` alone."""
    rng = np.random.default_rng(config.seed)
    for _ in range(config.crossed):
        for text, other in zip(texts, rng.permutation(len(texts)).tolist(), strict=True):
            yield "crossed", augment.cross(text, texts[other], rng)
    for _ in range(config.cut):
        for text in texts:
            yield "cut", augment.drop(text, rng, mask)
    if config.generated:
        yield from (("generated", text) for text, _ in sample.generate(config.generated, config.seed))
    unlabelled = _source(config)
    if unlabelled is not None:
        for piece in sources.pieces(unlabelled):
            for raw in sources.read(piece, unlabelled):
                yield from (
                    ("unlabelled", text.decode(errors="replace"))
                    for text in raw["headline"].to_pylist()
                    if text is not None
                )


def _source(config: DistilConfig) -> PreprocessConfig | None:
    """How to read the unlabelled headlines. Their column is the label column too, so none is required."""
    if config.unlabelled is None:
        return None
    column = config.headline_column
    return PreprocessConfig(source=config.unlabelled, headline_column=column, label_column=column)


def _mask(dataset: Dataset) -> str:
    """The tokenizer's mask token; empty if it has none."""
    loaded = tokenizer.load(dataset.tokenizer, dataset.max_tokens)
    return next((token for token in ("[MASK]", "<mask>") if loaded.token_to_id(token) is not None), "")


def _manifest(uri: str) -> Manifest:
    """The teacher's manifest. Raises DataError if its labels differ from the dataset's."""
    with workspace.existing(uri) as folder:
        manifest = Scorer(folder).manifest
    if manifest.labels != LABELS:
        theirs, ours = " and ".join(manifest.labels), " and ".join(LABELS)
        raise DataError(
            f"{uri}: the teacher's labels are {theirs}, the dataset's {ours}: give a teacher of the same "
            f"labels"
        )
    return manifest


def _identity(manifest: Manifest) -> list[str]:
    """What a teacher's scores depend on. The same model, exported again, is the same teacher."""
    return [
        manifest.files[name].sha256
        for name in (manifest.runtimes[manifest.default_runtime], "tokenizer.json")
    ] + [str(manifest.temperature)]


def main(config: DistilConfig) -> None:
    """Distils and prints where the student is."""
    print(f"student: {distil(config)}")


if __name__ == "__main__":
    cli.run(DistilConfig, main, __doc__)
