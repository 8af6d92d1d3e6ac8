"""A teacher's knowledge in a smaller model: the teacher scores headlines once, a student is trained on the
scores.

    python -m tuning.distil --config configs/distil.yaml --teachers artifacts/bundle

1. Headlines: the dataset's training split, variants of it that nobody labelled (crossed, cut), and unlabelled
   ones of your own.
2. Soft labels: Ray Data actors score them with every teacher's bundle; the mean margin is stored under a name
   of its content (`clickbait.data.soft_labels`), so a second student, or the same command after a kill, does
   not score again.
3. The student: `ray_jobs.train` on those scores and the labels (Hinton et al. 2015). The run is like any
   other: export, evaluate, promote.

Teachers are bundles of any encoder, each with its own tokenizer.
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

# the largest margin kept: a float32 probability says no more than 1 - 6e-8, and the student learns nothing of
# more
CERTAIN = 12.0


class DistilConfig(Config):
    """Teachers and headlines in, a student's run out: `tuning.distil`."""

    teachers: tuple[Uri, ...] = Field(("artifacts/bundle",), min_length=1)
    """Bundles; with several the mean of their margins is the target."""
    crossed: int = Field(2, ge=0, le=100)
    """New headlines for each one trained on: its beginning and another one's end."""
    cut: int = Field(1, ge=0, le=100)
    """New headlines for each one trained on: words masked or dropped, or a part of it."""
    generated: int = Field(0, ge=0, le=10_000_000)
    """Headlines of the synthetic generator added, without their labels."""
    unlabelled: str | None = None
    """More headlines: a path, URI, folder or glob as preprocess reads them; labels are not looked at."""
    headline_column: str = "headline"
    """Their column."""
    output: Uri = "artifacts/soft"
    """Soft labels are kept below."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Seeds the variants."""
    scorers: int = Field(2, ge=0, le=10_000)
    """Ray Data actors that score; 0 scores in the driver's own process."""
    threads: int = Field(1, ge=1, le=256)
    """Threads of each."""
    train: TrainConfig = TrainConfig(name="student", layers=2, hidden=128, epochs=20, lr=1e-3, batch_size=64)
    """The student and how it learns; its `soft_labels` are set here."""


def distil(config: DistilConfig) -> str:
    """Scores what is not scored yet, trains the student, returns its run's URI.

    Raises:
        BundleError: a teacher is no whole bundle.
        DataError: no dataset there, a teacher with other labels, unlabelled headlines that cannot be read.
        ModelError: the student's tokenizer is not the one that cut the dataset.
    """
    dataset = open_dataset(config.train.dataset)
    dataset.check_model(config.train.model)  # before the teachers score
    tracking.check()
    soft = soft_labels(config, dataset)
    return train.train(config.train.model_copy(update={"dataset": dataset.uri, "soft_labels": soft}))


def soft_labels(config: DistilConfig, dataset: Dataset) -> str:
    """The URI of the scored headlines, made now or before."""
    manifests = [_manifest(uri) for uri in config.teachers]
    given = _source(config)
    about = {
        "dataset": dataset.fingerprint,
        "teachers": [_identity(manifest) for manifest in manifests],
        "recipe": config.model_dump(mode="json", include={"crossed", "cut", "generated", "seed"}),
        "unlabelled": [] if given is None else sources.digests(sources.pieces(given)),
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
    """The margins (n,) behind the probabilities (n,)."""
    least = 1.0 / (1.0 + np.exp(CERTAIN))
    scores = np.clip(scores.astype(np.float64), least, 1.0 - least)
    margins: np.ndarray = np.log(scores) - np.log1p(-scores)
    return margins


def headlines(config: DistilConfig, dataset: Dataset) -> pa.Table:
    """What the teachers score, each headline once: columns headline, label (-1: none), origin. No held-out
    headline is among them.
    """
    split = dataset.table("train", ["headline", "label"])
    texts: list[str] = split["headline"].to_pylist()
    kept = dict(zip(texts, zip(split["label"].to_pylist(), ["train"] * len(texts), strict=True), strict=True))
    taken = {one for name in SPLITS for one in dataset.table(name, ["key"])["key"].to_pylist()}
    for origin, text in _unlabelled(config, texts, _mask(dataset)):
        text = clean(text)
        if text and (name := key(text)) not in taken:
            taken.add(name)
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
    """(origin, headline) of all that has no label; a function of config and texts alone."""
    rng = np.random.default_rng(config.seed)
    for _ in range(config.crossed):
        for text, other in zip(texts, rng.permutation(len(texts)).tolist(), strict=True):
            yield "crossed", augment.cross(text, texts[other], rng)
    for _ in range(config.cut):
        for text in texts:
            yield "cut", augment.drop(text, rng, mask)
    if config.generated:
        yield from (("generated", text) for text, _ in sample.generate(config.generated, config.seed))
    given = _source(config)
    if given is not None:
        for piece in sources.pieces(given):
            for raw in sources.read(piece, given):
                yield from (
                    ("unlabelled", text.decode(errors="replace"))
                    for text in raw["headline"].to_pylist()
                    if text is not None
                )


def _source(config: DistilConfig) -> PreprocessConfig | None:
    """How the unlabelled headlines are read: the headline stands for the label too, so that no label column
    is asked for.
    """
    if config.unlabelled is None:
        return None
    column = config.headline_column
    return PreprocessConfig(source=config.unlabelled, headline_column=column, label_column=column)


def _mask(dataset: Dataset) -> str:
    """The tokenizer's mask, where it has one."""
    known = tokenizer.load(dataset.tokenizer, dataset.max_tokens)
    return next((name for name in ("[MASK]", "<mask>") if known.token_to_id(name) is not None), "")


def _manifest(uri: str) -> Manifest:
    """The teacher's manifest, once its labels are found to be ours."""
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
    """What a teacher's scores hang on: exported anew, the same model is the same teacher."""
    return [
        manifest.files[name].sha256
        for name in (manifest.runtimes[manifest.default_runtime], "tokenizer.json")
    ] + [str(manifest.temperature)]


def main(config: DistilConfig) -> None:
    """Distil and say where the student is."""
    print(f"student: {distil(config)}")


if __name__ == "__main__":
    cli.run(DistilConfig, main, __doc__)
