"""A sweep's trials.json as one HTML page (`templates/sweep.html`), with the plots of `tuning.sweep.plots`.

Names and values are a user's text: the template escapes them. The same document gives the same bytes.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from pydantic import TypeAdapter

from clickbait.reports import page
from clickbait.reports.page import DASH
from tuning.sweep import plots as draw
from tuning.sweep.space import Domain, to_optuna

TRIALS_PER_KEY = 2
"""Trials for each searched key. With fewer, the importances of a random forest would be chance."""
NAMES = draw.WORDS
_DOMAIN: TypeAdapter[Any] = TypeAdapter(Domain)


def render(document: Mapping[str, Any]) -> str:
    """The page of `tuning.sweep.results.collect`'s document."""
    trials, space, best = document["trials"], document["space"], document["best"]
    shares, why = importance(trials, space)
    return _template().render(
        title=f"Sweep {document['name']}",
        d=document,
        best=next((trial for trial in trials if trial["name"] == best), None),
        counts={
            status: sum(trial["status"] == status for trial in trials)
            for status in ("finished", "stopped early", "failed")
        },
        parallel=draw.parallel(trials, space, best),
        curves=draw.curves(trials, best),
        importance=draw.importance(shares),
        why=why,
        pareto=draw.pareto(trials, document["objectives"]),
        measured=list(dict.fromkeys(["log_loss", *document["objectives"]])),
        epochs=sum(trial["epochs"] for trial in trials),
        seconds=sum(trial["seconds"] or 0.0 for trial in trials),
    )


def importance(trials: Sequence[Mapping[str, Any]], space: Mapping[str, Any]) -> tuple[dict[str, float], str]:
    """Each key's share of the log loss's variance, or an empty dict and the reason.

    fANOVA: Hutter et al., "An Efficient Approach for Assessing Hyperparameter Importance", ICML 2014.
    """
    import optuna

    known = [trial for trial in trials if trial["metrics"]["log_loss"] is not None]
    needed = max(TRIALS_PER_KEY * len(space), 4)
    if len(known) < needed:
        return {}, f"Too few trials to tell: {len(known)}; {len(space)} searched keys need {needed} or more."
    if len({trial["metrics"]["log_loss"] for trial in known}) == 1:
        return {}, "All trials have the same log loss: there is no variance to explain."
    if len(space) == 1:
        return {}, "Only one key was searched: it explains all of the variance."
    distributions = to_optuna({name: _DOMAIN.validate_python(domain) for name, domain in space.items()})
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    for trial in known:
        value = trial["metrics"]["log_loss"]
        study.add_trial(
            optuna.trial.create_trial(
                params={name: trial["config"][name] for name in space},
                distributions=distributions,
                value=value,
            )
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns about a forest on few rows
        importances = optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0)
        )
    return {name: float(share) for name, share in importances.items()}, ""


def _number(value: object, digits: int = 4) -> str:
    """A number with `digits` significant digits; a dash for None; anything else as it is."""
    if value is None:
        return DASH
    return (
        f"{value:.{digits}g}"
        if isinstance(value, int | float) and not isinstance(value, bool)
        else str(value)
    )


def _words(keys: Sequence[str]) -> str:
    return ", ".join(NAMES.get(key, key) for key in keys)


def _fixed(value: float | None) -> str:
    return DASH if value is None else f"{value:.4f}"


@functools.cache
def _template() -> jinja2.Template:
    return page.template(
        "tuning.sweep", "sweep.html", filters={"number": _number, "fixed": _fixed, "words": _words}
    )
