"""The training loop: plain torch, one process a worker, no Ray in it.

`ray_jobs.train` runs it under Ray Train's TorchTrainer; the tests and the benchmark call it as it is. It
keeps its place in checkpoints (`clickbait.training.runs`) and goes on from the newest whole one, whoever was
killed: a worker, the driver, the machine.
"""

from __future__ import annotations

import contextlib
import logging
import math
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch.nn.parallel import DistributedDataParallel

from clickbait import cores
from clickbait.config import TrainConfig
from clickbait.data import soft_labels
from clickbait.data.dataset import Dataset
from clickbait.errors import DataError, TrainingDiverged
from clickbait.evaluation import metrics
from clickbait.models import load
from clickbait.pretrained.tokenizer import load as load_tokenizer
from clickbait.training.batches import Batch, Headlines, Rewriter, epoch_steps, evaluation_batches, share
from clickbait.training.runs import SELECTED_BY, Checkpoint, Run, State, claim
from clickbait.training.tracking import Tracker

EVALUATION_TOKENS = 8192  # tokens a forward pass of evaluation takes: 256 headlines of 32
THRESHOLD = 0.5  # of the learning curve; the export chooses the bundle's own
LOG_STEPS = 20  # steps between two points of the loss curve
PROFILED_STEPS = 5
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where a worker stands among the others."""

    rank: int = 0
    world: int = 1
    local_world: int = 1
    device: str = "cpu"
    """As torch names it: `cpu`, `cuda`, `cuda:1`."""

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.device)


class Bar(Protocol):
    """The methods of a progress bar that the loop uses."""

    def update(self, n: int = 1) -> Any: ...
    def close(self) -> Any: ...


Report = Callable[[dict[str, float], str], None]
"""Called on every worker after each epoch with its metrics and the checkpoint's URI."""


def fit(
    config: TrainConfig,
    dataset: Dataset,
    place: Place,
    report: Report,
    make_bar: Callable[..., Bar] | None = None,
    *,
    group: str | None = None,
    driver: str | None = None,
) -> None:
    """Trains until the epochs are done, `max_steps` is reached or patience is out; every worker calls it at
    once.

    Rank 0 alone writes, and holds the run's lease while it does.

    Args:
        config: what to train, and how.
        dataset: the headlines.
        place: where this worker stands.
        report: called after each epoch.
        make_bar: a progress bar.
        group: the W&B group.
        driver: the command that the workers belong to: workers that it starts again take the lease over from
            those that died.

    Raises:
        DataError: the run's folder holds another run, or a checkpoint that this worker cannot read.
        ModelError: the base model is not available, or the dataset was cut by another tokenizer.
        RunInUse: another process writes this run, or has taken it over.
        TrainingDiverged: the loss is not a number any more.
    """
    run = Run(f"{config.output}/{config.name}")
    with run.hold(driver) if place.rank == 0 else contextlib.nullcontext():
        loop = Loop(config, dataset, place, run)
        with Tracker.start(config, dataset, enabled=place.rank == 0, group=group) as tracker:
            loop.run_epochs(report, tracker, make_bar if place.rank == 0 and config.progress else None)


def training_split(config: TrainConfig, dataset: Dataset) -> tuple[Headlines, Rewriter | None]:
    """What is trained on: the dataset's training split, or headlines with a teacher's scores; and who writes
    them otherwise.

    Raises:
        DataError: the soft labels are not there, or are of another dataset.
    """
    columns = ["input_ids", "label", *(["headline"] if config.augment else [])]
    if config.soft_labels is None:
        table = dataset.table("train", columns)
    else:
        table = soft_labels.open_soft(config.soft_labels, dataset).table([*columns, "margin"])
    rewriter = None
    if config.augment:
        rewriter = Rewriter(
            table["headline"],
            load_tokenizer(dataset.tokenizer, dataset.max_tokens),
            config.augment,
            config.seed,
        )
    return Headlines(table), rewriter


def headline_losses(
    config: TrainConfig, logits: torch.Tensor, labels: torch.Tensor, margins: torch.Tensor
) -> torch.Tensor:
    """The loss of each headline, float (rows,), of logits (rows, 2), labels (rows,; -1: none) and the
    teacher's margins (rows,).

    Cross entropy with the label; with soft labels the weighted mean of it and of the cross entropy with the
    teacher's probability, both sides at the soft temperature, times its square (Hinton, Vinyals, Dean 2015).
    A headline without a label has the teacher's alone.
    """
    known = labels >= 0
    hard = F.cross_entropy(
        logits, labels.clamp(min=0), reduction="none", label_smoothing=config.label_smoothing
    )
    if config.soft_labels is None:
        return hard
    heat = config.soft_temperature
    margin = logits[:, 1] - logits[:, 0]
    soft = (
        F.binary_cross_entropy_with_logits(margin / heat, torch.sigmoid(margins / heat), reduction="none")
        * heat**2
    )
    weight = torch.where(known, config.soft_weight, 1.0)
    return weight * soft + (1.0 - weight) * hard


def learning_rate(config: TrainConfig, step: int, total: int) -> float:
    """The learning rate of step `step` (from 0) of `total`: a linear rise, then the schedule's fall to
    zero.
    """
    warmup = math.ceil(config.warmup_fraction * total)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    left = 1.0 - (step - warmup) / max(total - warmup, 1)
    shape = {"constant": 1.0, "linear": left, "cosine": 0.5 * (1.0 - math.cos(math.pi * left))}
    return config.lr * shape[config.schedule]


def has_bf16(device: torch.device) -> bool:
    """Whether the hardware computes in bf16 (avx512_bf16, AMX, Arm bf16, or Ampere and later)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    able = torch.cpu.get_capabilities()
    return bool(
        able.get("avx512_bf16")
        or able.get("amx_bf16")
        or (platform.machine() == "aarch64" and able.get("bf16"))
    )


def make_optimizer(model: torch.nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """Fused AdamW (Loshchilov and Hutter 2019); matrices decay, biases and norms do not."""
    matrices = [weights for weights in model.parameters() if weights.ndim >= 2]
    vectors = [weights for weights in model.parameters() if weights.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)


class Loop:
    """Model, optimizer and place in the data of one worker."""

    def __init__(self, config: TrainConfig, dataset: Dataset, place: Place, run: Run) -> None:
        self.config, self.dataset, self.place, self.run = config, dataset, place, run
        torch.set_num_threads(cores.worker_threads(config, place.local_world))
        self.train, self.rewriter = training_split(config, dataset)
        self.validation = Headlines(dataset.table("validation", ["input_ids", "label"]))
        if place.rank == 0:
            claim(self.run, config, dataset)

        dataset.check_model(config.model)
        self.model = load.load(config, dataset.tokenizer, dataset.max_tokens).to(place.torch_device)
        self.pad_id = int(self.model.config.pad_token_id or 0)
        self.optimizer = make_optimizer(self.model, config)
        self.steps_per_epoch = math.ceil(len(self.train) / config.batch_size)
        self.total = min(
            config.epochs * self.steps_per_epoch, config.max_steps or config.epochs * self.steps_per_epoch
        )
        torch.manual_seed(config.seed * 1_000_003 + place.rank)  # dropout differs from worker to worker
        self.state = self._resume()
        self.ddp: torch.nn.Module = self.model
        if place.world > 1:
            self.ddp = DistributedDataParallel(
                self.model, device_ids=[place.torch_device] if place.torch_device.type == "cuda" else None
            )
        self.bf16 = config.precision == "bf16" or (
            config.precision == "auto" and has_bf16(place.torch_device)
        )

    def run_epochs(
        self, report: Report, tracker: Tracker, make_bar: Callable[..., Bar] | None = None
    ) -> None:
        """The epochs that are left, each followed by evaluation, a checkpoint and a report."""
        if self.place.rank == 0:
            self._note_best()  # killed between a checkpoint and its note
        if self.state.history and self._over():  # killed between the last checkpoint and the end
            report(self.state.history[-1], self.run.checkpoint_uri(f"step-{self.state.step:08d}"))
        bar = make_bar(total=self.total, desc=self.config.name) if make_bar else None
        if bar:
            bar.update(self.state.step)
        with self._profiler() as tick:
            while not self._over():
                self._train_epoch(tracker, bar, tick)
                entry = self._close_epoch()
                tracker.log(entry, step=self.state.step)
                report(entry, self.run.checkpoint_uri(f"step-{self.state.step:08d}"))
        if bar:
            bar.close()
        if self.place.rank == 0:
            tracker.summary(self.state.history)
            self.run.write_json("done.json", {"step": self.state.step, "history": self.state.history})

    def step(self, rows: np.ndarray, step: int) -> torch.Tensor:
        """One optimizer step on these rows; this worker's part of their mean loss, still on the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, step, self.total)
        loss_sum = torch.zeros((), device=self.place.torch_device)
        parts = list(share(rows, self.place.rank, self.place.world, self.config.accumulation))
        for index, (part, weights) in enumerate(parts):
            instead = self.rewriter.tokens(part, self.state.epoch) if self.rewriter else None
            batch = self.train.batch(part, weights, self.pad_id, instead)
            quiet = self.place.world > 1 and index < len(parts) - 1  # gradients travel once a step
            with (
                self.ddp.no_sync()
                if quiet and isinstance(self.ddp, DistributedDataParallel)
                else contextlib.nullcontext()
            ):
                logits = self._logits(self.ddp, batch)
                losses = headline_losses(
                    self.config,
                    logits,
                    batch.labels.to(self.place.torch_device),
                    batch.margins.to(self.place.torch_device),
                )
                loss = (losses * batch.weights.to(self.place.torch_device)).sum()
                (loss * self.place.world).backward()  # type: ignore[no-untyped-call]  # DDP takes the workers' mean; the weights make a sum
            loss_sum += loss.detach()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss_sum

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Log loss (as it is and calibrated), accuracy, F1, AUC and ECE on the whole validation split, exact
        for any number of workers.
        """
        self.model.eval()
        mine = []
        for rows in evaluation_batches(
            self.validation.lengths, EVALUATION_TOKENS, self.place.rank, self.place.world
        ):
            logits = self._logits(self.model, self.validation.batch(rows, np.ones(len(rows)), self.pad_id))
            mine.append((rows, (logits[:, 1] - logits[:, 0]).cpu().numpy()))
        self.model.train()
        parts: list[Any] = [mine]
        if self.place.world > 1:
            parts = [None] * self.place.world
            dist.all_gather_object(parts, mine)
        margins = np.zeros(len(self.validation))
        for rows, part in (pair for worker in parts for pair in worker):
            margins[rows] = part
        self._check_loss(float(np.abs(margins).max()), self.state, "validation")
        labels = self.validation.labels
        found = metrics.classification(labels, metrics.probabilities(margins, 1.0), THRESHOLD)
        calibrated = metrics.probabilities(margins, metrics.temperature(labels, margins))
        found["calibrated_log_loss"] = metrics.classification(labels, calibrated, THRESHOLD)["log_loss"]
        return {
            f"val_{name}": float(found[name])
            for name in ("log_loss", "calibrated_log_loss", "accuracy", "f1", "auc", "ece")
        }

    def _logits(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        device = self.place.torch_device
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.bf16):
            out = model(input_ids=batch.input_ids.to(device), attention_mask=batch.attention_mask.to(device))
        logits: torch.Tensor = out.logits.float()
        return logits

    def _train_epoch(self, tracker: Tracker, bar: Bar | None, tick: Callable[[], None]) -> None:
        """From the state's position to the epoch's end (or `max_steps`)."""
        self.model.train()
        state = self.state
        start = time.perf_counter()
        loss_sum = torch.tensor(
            state.loss_sum if self.place.rank == 0 else 0.0, device=self.place.torch_device
        )
        rows_seen = 0
        steps = epoch_steps(self.train.lengths, self.config.batch_size, self.config.seed, state.epoch)
        for rows in steps[state.position :]:
            if state.step >= self.total:
                break
            loss = self.step(rows, state.step)
            loss_sum += loss
            rows_seen += len(rows)
            tick()
            state = state.model_copy(update={"step": state.step + 1, "position": state.position + 1})
            if bar:
                bar.update(1)
            if state.step % LOG_STEPS == 0:
                figures = {
                    "train_loss": float(loss) * self.place.world,
                    "lr": learning_rate(self.config, state.step, self.total),
                }
                self._check_loss(figures["train_loss"], state)
                tracker.log(figures, state.step)
            if (
                self.config.checkpoint_steps
                and state.step % self.config.checkpoint_steps == 0
                and state.position < len(steps)
            ):
                self.state = state.model_copy(update={"loss_sum": self._total(loss_sum)})
                self._check_loss(self.state.loss_sum, self.state)
                self._save()
        seconds = time.perf_counter() - start
        self.rows_per_second = rows_seen / seconds if rows_seen else 0.0
        self.seconds = seconds
        self.state = state.model_copy(update={"loss_sum": self._total(loss_sum)})
        self._check_loss(self.state.loss_sum, self.state)

    def _check_loss(self, loss: float, state: State, which: str = "training") -> None:
        """Before a checkpoint is written: a model whose loss is no number will never learn anything again.

        Raises:
            TrainingDiverged: the loss is not finite.
        """
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"{self.run.uri}: the {which} loss is {loss} at step {state.step}, epoch {state.epoch + 1}: "
                f"the training has diverged. "
                f"Lower lr ({self.config.lr:g} here, try {self.config.lr / 10:g}) or raise warmup_fraction, "
                f"and give another --name"
            )

    def _close_epoch(self) -> dict[str, float]:
        """Evaluates, adds the epoch to the history and writes a checkpoint."""
        state = self.state
        entry = {
            "epoch": float(state.epoch + 1),
            "step": float(state.step),
            "train_loss": state.loss_sum / max(state.position, 1),
            "lr": learning_rate(self.config, state.step - 1, self.total),
            "seconds": self.seconds,
            "rows_per_second": self.rows_per_second,
            **self.validate(),
        }
        history = [*state.history, entry]
        self.state = State(step=state.step, epoch=state.epoch + 1, position=0, loss_sum=0.0, history=history)
        self._save()
        return entry

    def _over(self) -> bool:
        state = self.state
        losses = [entry[SELECTED_BY] for entry in state.history]
        if (
            self.config.patience
            and losses
            and len(losses) - 1 - losses.index(min(losses)) >= self.config.patience
        ):
            return True
        return state.step >= self.total

    def _note_best(self) -> None:
        """Says which epoch's checkpoint is the best so far; of equals the latest."""
        if self.state.history:
            best = min(reversed(self.state.history), key=lambda entry: entry[SELECTED_BY])
            self.run.write_json("best.json", {"checkpoint": f"step-{int(best['step']):08d}", **best})

    def _total(self, value: torch.Tensor) -> float:
        """The workers' sum."""
        value = value.clone()
        if self.place.world > 1:
            dist.all_reduce(value)
        return float(value)

    def _save(self) -> None:
        """A checkpoint: rank 0 writes, after every worker handed over its RNG."""
        own = [torch.get_rng_state()]
        if self.place.torch_device.type == "cuda":
            own.append(torch.cuda.get_rng_state(self.place.torch_device))
        everyone: list[Any] = [own]
        if self.place.world > 1:
            everyone = [None] * self.place.world
            dist.all_gather_object(everyone, own)
        if self.place.rank:
            return
        with tempfile.TemporaryDirectory(prefix="checkpoint-") as name:
            folder = Path(name)
            self.model.save_pretrained(folder)
            (folder / "tokenizer.json").write_bytes(self.dataset.tokenizer)
            save_file(flatten_optimizer(self.optimizer), folder / "optimizer.safetensors")
            rng = {
                f"{rank}.{kind}": state
                for rank, states in enumerate(everyone)
                for kind, state in enumerate(states)
            }
            save_file(rng, folder / "rng.safetensors")
            self.run.save(folder, self.state)
        self._note_best()
        self.run.prune(self.config.keep_checkpoints)

    def _resume(self) -> State:
        """The newest whole checkpoint's weights, optimizer, RNG and place; the start where there is none.

        Rank 0 chooses the checkpoint, and tells the others its name and its files' SHA-256s. A rank that
        looked for itself might see another one, where the storage is slow to show what was written.
        """
        chosen: list[Checkpoint | None] = [self._load_newest() if self.place.rank == 0 else None]
        if self.place.world > 1:
            dist.broadcast_object_list(chosen, src=0, device=self.place.torch_device)
        checkpoint = chosen[0]
        if checkpoint is None:
            return State(step=0, epoch=0, position=0, loss_sum=0.0, history=[])
        if self.place.rank:
            self._load(checkpoint)
        return checkpoint.state

    def _load_newest(self) -> Checkpoint | None:
        """Loads the newest intact checkpoint. A changed one is deleted, with a warning."""
        for name in reversed(self.run.complete()):
            try:
                checkpoint = self.run.checkpoint(name)
                self._load(checkpoint)
            except DataError as error:
                log.warning("%s; going on from the checkpoint before it", error)
                self.run.discard([name])  # else it would count as the newest when others are pruned
            else:
                return checkpoint
        return None

    def _load(self, checkpoint: Checkpoint) -> None:
        """The checkpoint's weights, optimizer and this rank's RNG."""
        device = self.place.torch_device
        with self.run.fetch(checkpoint) as folder:
            self.model.load_state_dict(load.load_checkpoint(folder).state_dict())
            restore_optimizer(self.optimizer, load_file(folder / "optimizer.safetensors"), device)
            rng = load_file(folder / "rng.safetensors")
        if f"{self.place.rank}.0" in rng:  # another number of workers than before: the seed's RNG goes on
            torch.set_rng_state(rng[f"{self.place.rank}.0"])
            if device.type == "cuda" and f"{self.place.rank}.1" in rng:
                torch.cuda.set_rng_state(rng[f"{self.place.rank}.1"], device)

    @contextlib.contextmanager
    def _profiler(self) -> Iterator[Callable[[], None]]:
        """With `profile`, a torch profiler over the first steps of rank 0; the trace goes to the run's
        folder.
        """
        if not self.config.profile or self.place.rank:
            yield lambda: None
            return
        activities = [torch.profiler.ProfilerActivity.CPU]
        if self.place.torch_device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)

        def keep(profiler: torch.profiler.profile) -> None:
            with tempfile.TemporaryDirectory(prefix="profile-") as folder:
                trace = Path(folder) / "trace.json"
                profiler.export_chrome_trace(str(trace))
                self.run.storage.upload(trace, "profile/trace.json")
            table = profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=25)
            self.run.storage.write("profile/summary.txt", table.encode())

        schedule = torch.profiler.schedule(wait=1, warmup=1, active=PROFILED_STEPS, repeat=1)
        with torch.profiler.profile(
            activities=activities, schedule=schedule, on_trace_ready=keep
        ) as profiler:
            yield profiler.step


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's state as tensors named `<parameter>.<entry>`: safetensors, not a pickle."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": value.contiguous()
        for index, entries in state.items()
        for name, value in entries.items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor], device: torch.device
) -> None:
    """The inverse of `flatten_optimizer`; the parameter groups are the optimizer's own."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value.to(device)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
