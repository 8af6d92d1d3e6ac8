"""A sweep's progress: one line a report, in place of Ray Tune's tables."""

from __future__ import annotations

from typing import Any

from ray import tune


class Progress(tune.Callback):  # type: ignore[misc]  # ray is untyped
    """Prints what each trial reports and how it ends. Its state is saved with the sweep's."""

    def __init__(self, trials: int, epochs: int) -> None:
        self.trials, self.epochs = trials, epochs
        self.best: tuple[float, str] | None = None

    def on_trial_result(self, *, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        if result["final"]:
            return  # told when it is complete
        if self.best is None or result["log_loss"] < self.best[0]:
            self.best = result["log_loss"], str(trial)
        self._say(trial, f"epoch {result['epoch']}/{self.epochs}, log loss {result['current']:.4f}", trials)

    def on_trial_complete(self, *, trials: list[Any], trial: Any, **_: Any) -> None:
        result = trial.last_result or {}
        if not result.get("final"):
            self._say(trial, f"stopped early after epoch {result.get('epoch', 0)}", trials, trial)
            return
        if self.best is None or result["log_loss"] < self.best[0]:
            self.best = result["log_loss"], str(trial)
        figures = [
            f"{name} {result[name]:.4g}" for name in ("log_loss", "flip_rate", "latency_ms") if name in result
        ]
        self._say(
            trial, f"finished, epoch {result['epoch']}/{self.epochs}, {', '.join(figures)}", trials, trial
        )

    def on_trial_recover(self, *, trials: list[Any], trial: Any, **_: Any) -> None:
        self._say(trial, "failed, starts again", trials)

    def on_trial_error(self, *, trials: list[Any], trial: Any, **_: Any) -> None:
        told = (str(trial.get_error() or "").strip() or "no word").splitlines()[-1]
        self._say(trial, f"failed: {told}", trials, trial)

    def get_state(self) -> dict[str, Any]:
        return {"best": self.best}

    def set_state(self, state: dict[str, Any]) -> None:
        self.best = state["best"]

    def _say(self, trial: Any, what: str, trials: list[Any], ending: Any = None) -> None:
        """`ending`: the trial that is about to end, of which Tune says so a moment later."""
        best = f"best {self.best[0]:.4f} ({self.best[1]})" if self.best else "no best yet"
        ended = sum(one.is_finished() or one is ending for one in trials)
        running = sum(one.status == "RUNNING" and one is not ending for one in trials)
        print(f"{trial}: {what}; {best}; {running} running, {ended} of {self.trials} ended", flush=True)
