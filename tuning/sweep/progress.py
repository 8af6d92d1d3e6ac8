"""A sweep's progress: one line per report, instead of Ray Tune's tables."""

from __future__ import annotations

from typing import Any

from ray import tune


class Progress(tune.Callback):  # type: ignore[misc]  # ray is untyped
    """Prints each trial's reports and how it ends. Its state is saved with the sweep's."""

    def __init__(self, trials: int, epochs: int) -> None:
        self.trials, self.epochs = trials, epochs
        self.best: tuple[float, str] | None = None

    def on_trial_result(self, *, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        if result["final"]:
            return  # printed by `on_trial_complete`
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
        message = (str(trial.get_error() or "").strip() or "no message").splitlines()[-1]
        self._say(trial, f"failed: {message}", trials, trial)

    def get_state(self) -> dict[str, Any]:
        return {"best": self.best}

    def set_state(self, state: dict[str, Any]) -> None:
        self.best = state["best"]

    def _say(self, trial: Any, event: str, trials: list[Any], ending: Any = None) -> None:
        """Prints one line. `ending` is a trial that ends now, but that Tune does not yet count as ended."""
        best = f"best {self.best[0]:.4f} ({self.best[1]})" if self.best else "no best yet"
        ended = sum(each.is_finished() or each is ending for each in trials)
        running = sum(each.status == "RUNNING" and each is not ending for each in trials)
        print(f"{trial}: {event}; {best}; {running} running, {ended} of {self.trials} ended", flush=True)
