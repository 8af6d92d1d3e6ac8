"""A sweep's progress: one line a report, in place of Ray Tune's tables."""

from __future__ import annotations

from typing import Any

from ray import tune


class Progress(tune.Callback):
    """Prints what each trial reports and how it ends. Its state is saved with the sweep's."""

    def __init__(self, trials: int, epochs: int) -> None:
        self.trials, self.epochs = trials, epochs
        self.best: tuple[float, str] | None = None

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
        if result["final"]:
            return  # told when it is complete
        if self.best is None or result["log_loss"] < self.best[0]:
            self.best = result["log_loss"], str(trial)
        self._say(trial, f"epoch {result['epoch']}/{self.epochs}, log loss {result['current']:.4f}", trials)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        result = trial.last_result or {}
        if not result.get("final"):
            self._say(trial, f"stopped early after epoch {result.get('epoch', 0)}", trials)
            return
        if self.best is None or result["log_loss"] < self.best[0]:
            self.best = result["log_loss"], str(trial)
        more = [f", {name} {result[name]:.4g}" for name in ("flip_rate", "latency_ms") if name in result]
        self._say(trial, f"finished, epoch {result['epoch']}/{self.epochs}, log loss {result['log_loss']:.4f}{''.join(more)}", trials)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._say(trial, "failed, starts again", trials)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._say(trial, "failed", trials)

    def get_state(self) -> dict[str, Any]:
        return {"best": self.best}

    def set_state(self, state: dict[str, Any]) -> None:
        self.best = state["best"]

    def _say(self, trial: Any, what: str, trials: list[Any]) -> None:
        best = f"best {self.best[0]:.4f} ({self.best[1]})" if self.best else "no best yet"
        ended = [one for one in trials if one.is_finished()]
        running = sum(one.status == "RUNNING" for one in trials)
        print(f"{trial}: {what}; {best}; {running} running, {len(ended)} of {self.trials} ended", flush=True)
