"""A sweep's trials.json as one HTML page (`clickbait.reports.page`); `tuning.sweep.plots` draws.

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

PER_PARAMETER = 2  # trials for each of what was searched, below which a forest of trees would tell of chance
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
    """Each key's share of the log loss's variance (fANOVA: Hutter et al. 2014), or none and why there is
    none.
    """
    import optuna

    known = [trial for trial in trials if trial["metrics"]["log_loss"] is not None]
    needed = max(PER_PARAMETER * len(space), 4)
    if len(known) < needed:
        return (
            {},
            f"Too few trials to tell: {len(known)}, where {len(space)} searched keys need {needed} or more.",
        )
    if len({trial["metrics"]["log_loss"] for trial in known}) == 1:
        return {}, "All trials have the same log loss: nothing to share out."
    if len(space) == 1:
        return {}, "One key was searched: all of it is its."
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
        warnings.simplefilter("ignore")  # scikit-learn's, of a forest on few rows
        found = optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0)
        )
    return {name: float(share) for name, share in found.items()}, ""


def _number(value: object, digits: int = 4) -> str:
    """Significant digits of a number, anything else as it is, a dash for what is not there."""
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


_BODY = """\
{% if d.synthetic %}
<p class="banner"><b>Synthetic headlines.</b> The figures show that the search works, not how well a model reads real ones.</p>
{% endif %}
<header>
<h1>{{ title }}</h1>
<p class="about"><span>dataset <code>{{ d.dataset }}</code></span><span>scheduler <b>{{ d.scheduler }}</b></span>
<span>searcher <b>{{ d.searcher }}</b></span><span>{{ d.objectives|words }} made small, on the validation split</span></p>
</header>

<section><div class="cards">
<div class="card"><div class="name">Trials</div><div class="value">{{ d.trials|length }}</div>
<div class="note">{{ counts["finished"] }} finished, {{ counts["stopped early"] }} stopped early, {{ counts["failed"] }} failed</div></div>
<div class="card"><div class="name">Epochs trained</div><div class="value">{{ epochs }}</div>
<div class="note">of {{ d.epochs * d.trials|length }} without a scheduler</div></div>
<div class="card"><div class="name">Time in trials</div><div class="value">{{ "%.0f s"|format(seconds) }}</div>
<div class="note">some at once</div></div>
{% if best %}{% for name, value in best.metrics.items() %}
<div class="card"><div class="name">Best: {{ [name]|words }}</div><div class="value">{{ value|number }}</div>
<div class="note">{{ best.name }}</div></div>
{% endfor %}{% endif %}
</div>
{% if best %}
<h3>The best one's values</h3>
<p class="about">{% for name, value in best.config.items() %}<span>{{ name }} <b><bdi>{{ value|number }}</bdi></b></span>{% endfor %}</p>
{% endif %}
</section>

{% if parallel %}
<section><h2>What was tried</h2><figure>{{ parallel|safe }}</figure></section>
{% endif %}

{% if curves %}
<section><h2>How they learnt, and what mattered</h2>
<div class="plots">
<figure>{{ curves|safe }}<figcaption>Log loss over epochs; a cross: stopped early, a triangle: failed</figcaption></figure>
{% if importance %}<figure>{{ importance|safe }}
<figcaption>Importance (fANOVA), of all trials' lowest log loss, the stopped ones' too</figcaption></figure>
{% else %}<p class="muted">Importance of what was searched. {{ why }}</p>{% endif %}
</div></section>
{% endif %}

{% if pareto %}
<section><h2>What is paid for what</h2>
<div class="plots">{% for caption, svg in pareto %}<figure>{{ svg|safe }}<figcaption>{{ caption }}</figcaption></figure>{% endfor %}</div>
<p class="muted foot">Filled: on the Pareto front, no other finished trial is as good in all and better in one. Numbers as in the table.</p>
</section>
{% endif %}

<section><h2>Trials</h2>
<div class="scroll"><table>
<thead><tr><th class="n">#</th><th>trial</th><th>status</th>{% for name in d.space %}<th class="n">{{ name }}</th>{% endfor %}
{% for name in measured %}<th class="n">{{ [name]|words }}</th>{% endfor %}<th class="n">epochs</th><th class="n">seconds</th></tr></thead>
{% for trial in d.trials %}
<tr{% if best and trial.name == best.name %} class="best"{% endif %}><td class="n">{{ loop.index }}</td><td><bdi>{{ trial.name }}</bdi></td>
<td><span class="tag {{ {"finished": "good", "failed": "bad"}.get(trial.status, "muted") }}">{{ trial.status }}</span>
{% if trial.pareto and d.objectives|length > 1 %} <span class="tag news">Pareto</span>{% endif %}</td>
{% for name in d.space %}<td class="n"><bdi>{{ trial.config.get(name)|number }}</bdi></td>{% endfor %}
{% for name in measured %}<td class="n">{{ trial.metrics[name]|fixed }}</td>{% endfor %}
<td class="n">{{ trial.epochs }}</td><td class="n">{{ trial.seconds|number(3) }}</td></tr>
{% if trial.error %}
<tr><td></td><td class="muted error" colspan="{{ 4 + d.space|length + measured|length }}">{{ trial.error }}</td></tr>
{% endif %}
{% endfor %}
</table></div></section>
"""
_STYLE = """
main { max-width:1200px; }
.best td { font-weight:650; }
.error { overflow-wrap:anywhere; }
.foot { margin:14px 0 0; }
h3 + .about { margin-bottom:0; }
"""


@functools.cache
def _template() -> jinja2.Template:
    return page.template(_BODY, style=_STYLE, filters={"number": _number, "fixed": _fixed, "words": _words})
