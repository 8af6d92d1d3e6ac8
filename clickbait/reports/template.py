"""The body of a report's page (Jinja). `clickbait.reports.report` fills it, `clickbait.reports.page` stands
around it.
"""

from __future__ import annotations

BODY = """\
{% macro card(name, value, note="", tone="") %}
<div class="card {{ tone }}"><div class="name">{{ name }}</div><div class="value">{{ value }}</div><div class="note">{{ note }}</div></div>
{% endmacro %}
{% macro bar(share, tone="bad") %}
<span class="bar"><i class="{{ tone }}" style="width:{{ '%.1f' % (100 * [share, 1]|min) }}%"></i></span>
{% endmacro %}
{% macro head() %}{# "#name": a column of numbers; "~name": a wide one #}
<thead><tr>{% for name in varargs %}
<th class="{{ {"#": "n", "~": "w"}[name[:1]] }}">{{ name.lstrip("#~") }}</th>{% endfor %}</tr></thead>
{% endmacro %}
{% macro cells() %}{% for value in varargs %}<td class="n">{{ value }}</td>{% endfor %}{% endmacro %}
{% macro figures(list) %}
<div class="plots">
{% for caption, svg in list if svg %}<figure>{{ svg|safe }}<figcaption>{{ caption }}</figcaption></figure>{% endfor %}
</div>
{% endmacro %}
{% macro confusion(table) %}
<figure class="confusion"><table>
<thead><tr><td></td><th>verdict: news</th><th>verdict: clickbait</th></tr></thead>
{% for row in table %}{% set said = loop.index0 %}
<tr><th>{{ label(said) }}</th>
{% for cell in row %}{% set share = cell / ([row|sum, 1]|max) %}
<td style="--share:{{ '%.0f' % (10 + 60 * share) }}%" class="{{ 'good' if said == loop.index0 else 'bad' }}">
<b>{{ cell|number }}</b><br><small>{{ share|percent }}</small></td>
{% endfor %}</tr>{% endfor %}
</table><figcaption>Confusion: rows are labels, columns verdicts</figcaption></figure>
{% endmacro %}
{% macro shares(of, parts) %}
<div class="scroll"><table>
{{ head(of, "#cases", "#hold", "~share that fails") }}
{% for name, found in parts.items() %}
<tr><td>{{ name|replace("_", " ")|replace("-", " ") }}</td>{{ cells(found.cases|number, found.passed|number) }}
<td>{{ bar(1 - found.rate) }}{{ (1 - found.rate)|percent(1) }}</td></tr>
{% endfor %}
</table></div>
{% endmacro %}
{% macro label(value) %}<span class="tag {{ 'clickbait' if value else 'news' }}">{{ "clickbait" if value else "news" }}</span>{% endmacro %}
{% if m.synthetic %}
<p class="banner"><b>Synthetic headlines.</b> This model was trained and measured on generated headlines: the figures show that the
pipeline works, not how well the model reads real ones.</p>
{% endif %}
<header>
<h1>{{ title }}</h1>
<p class="about">
{% if m.model %}<span>model <b>{{ m.model.name }}{% if m.model.version %} {{ m.model.version }}{% endif %}</b></span>
<span>from <b>{{ m.model.base_model }}</b></span>{% endif %}
{% if m.dataset %}<span>dataset <code>{{ m.dataset }}</code></span>{% endif %}
{% if threshold is not none %}<span>clickbait where score ≥ <b>{{ threshold|number }}</b></span>{% endif %}
{% if m.verdict %}<span class="tag {{ 'good' if m.verdict.decision == 'promoted' else 'bad' }}">{{ m.verdict.decision }}</span>{% endif %}
</p>
</header>

<section>
<div class="cards">
{{ card("Accuracy", m.test.accuracy|percent, m.test.rows|number ~ " test headlines") }}
{{ card("F1", m.test.f1|percent, "of clickbait") }}
{{ card("Precision", m.test.precision|percent, "of what it calls clickbait") }}
{{ card("Recall", m.test.recall|percent, "of all clickbait") }}
{{ card("ROC AUC", m.test.auc|number(4), "whatever the threshold") }}
{{ card("Log loss", m.test.log_loss|number(4), "nats a headline") }}
{{ card("Calibration error", m.test.ece|percent, "expected, 15 bins") }}
{% if m.transfer %}{{ card("Transfer AUC", m.transfer.auc|number(4), m.transfer.rows|number ~ " other headlines") }}{% endif %}
{% if m.flips %}{{ card("Worst flip rate", m.flips.values()|max|percent, "of " ~ m.flips|length ~ " harmless changes") }}{% endif %}
{% if m.behaviour %}{{ card("Behaviour", m.behaviour.passed|number ~ " / " ~ m.behaviour.cases|number, "cases hold") }}{% endif %}
{% if m.latency %}{{ card("Latency", m.latency.single_p50_ms|number(1) ~ " ms", "median, one headline") }}{% endif %}
</div>
</section>

{% if m.verdict %}
<section><h2>Gate: <span class="{{ 'good' if m.verdict.decision == 'promoted' else 'bad' }}">{{ m.verdict.decision }}</span></h2>
<div class="scroll"><table>
{{ head("check", "#value", "#bound", "result", "note") }}
{% for check in m.verdict.checks %}
<tr><td>{{ check.name|replace("_", " ") }}</td><td class="n">{{ check.value|number }}</td>
<td class="n">{{ {"<=": "≤", ">=": "≥"}.get(check.op, check.op) }} {{ check.bound|number }}</td>
{% set result = "fail" if not check.passed else "skipped" if check.value is none else "pass" %}
<td><span class="tag {{ {"fail": "bad", "pass": "good", "skipped": "muted"}[result] }}">{{ result }}</span></td>
<td class="muted">{{ check.note or "" }}</td></tr>
{% endfor %}
</table></div>
{% if m.verdict.compared %}
<p class="muted">The candidate and versions of the registry on the same test headlines. p: the probability of a result as bad for the
candidate, were both models equally good (exact McNemar test).</p>
<div class="scroll"><table>
{{ head("version", "compared as", "#headlines", "#its accuracy", "#candidate's", "#only it is right", "#only candidate is right", "#p") }}
{% for pair in m.verdict.compared %}
<tr><td>{{ pair.version }}</td>
<td>{{ {"champion": "champion", "best": "best version ever promoted"}.get(pair.role, pair.role) }}</td>
{{ cells(pair.rows|number, pair.accuracy|percent, pair.candidate_accuracy|percent, pair.only_version_right|number,
pair.only_candidate_right|number, pair.p_value|number) }}</tr>
{% endfor %}
</table></div>
{% endif %}
</section>
{% endif %}

{% if m.history %}
<section><h2>Learning curves</h2>
{{ figures(learning) }}
<details><summary>Every evaluation</summary><div class="scroll"><table>
{{ head("#epoch", "#step", "#training loss", "#validation log loss", "#accuracy", "#AUC", "#learning rate", "#seconds") }}
{% for row in m.history %}
<tr>{{ cells(row.epoch|number, row.step|number, row.train_loss|number(4), row.val_log_loss|number(4),
row.val_accuracy|percent, row.val_auc|number(4), row.lr|number, row.seconds|number(1)) }}</tr>
{% endfor %}
</table></div></details></section>
{% endif %}

<section><h2>Test split</h2>
<div class="plots">{{ confusion(m.test.confusion) }}</div>
{{ figures(test_plots) }}
</section>

{% if m.slices %}{% set top = m.slices.values()|map(attribute="accuracy")|min %}
<section><h2>Slices</h2>
<div class="scroll"><table>
{{ head("headlines", "#rows", "#clickbait", "#accuracy", "#F1", "~errors") }}
{% for name, slice in m.slices.items() %}
<tr><td>{{ names.get(name, name)|replace("_", " ") }}</td>{{ cells(slice.rows|number, slice.share_clickbait|percent(1),
slice.accuracy|percent, slice.f1|percent) }}
<td>{{ bar((1 - slice.accuracy) / ([1 - top, 0.001]|max)) }}{{ (1 - slice.accuracy)|percent }}</td></tr>
{% endfor %}
</table></div></section>
{% endif %}

{% if m.flips %}{% set top = [m.flips.values()|max, 0.01]|max %}
<section><h2>Invariances</h2>
<p class="muted">Share of test verdicts that change when the headline is written differently and says the same.</p>
<div class="scroll"><table>
{{ head("change", "~verdicts that flip") }}
{% for name, share in m.flips.items() %}
<tr><td>{{ names.get(name, name)|replace("_", " ") }}</td><td>{{ bar(share / top) }}{{ share|percent }}</td></tr>
{% endfor %}
</table></div></section>
{% endif %}

{% if m.behaviour %}
<section><h2>Behaviour</h2>
<p class="muted">{{ m.behaviour.passed|number }} of {{ m.behaviour.cases|number }} cases of the catalogue hold.</p>
{{ shares("kind", m.behaviour.kinds) }}
<details><summary>By group</summary>{{ shares("group", m.behaviour.groups) }}</details>
{% if m.behaviour.failed %}
<h3>Cases that fail</h3>
<div class="scroll"><table>
{{ head("case", "headline", "#P(clickbait)", "must be") }}
{% for case in m.behaviour.failed %}{% set texts = [case.text] + (case.variants or []) + ([case.variant] if case.variant else []) %}
{% for text in texts %}
<tr>{% if loop.first %}<td rowspan="{{ texts|length }}">{{ case.name }}</td>{% endif %}
<td class="headline"><bdi>{{ text }}</bdi></td><td class="n">{{ case.scores[loop.index0]|percent(1) }}</td>
{% if loop.first %}<td rowspan="{{ texts|length }}">{{ case.expect ~ " clickbait" if case.variant else case.expect or "the same" }}</td>
{% endif %}</tr>
{% endfor %}{% endfor %}
</table></div>
{% endif %}
</section>
{% endif %}

{% if m.transfer %}
<section><h2>Transfer</h2>
<p class="muted">Headlines of another source, never trained on{% if m.transfer.source %}: <bdi>{{ m.transfer.source }}</bdi>{% endif %}.
{% if m.transfer.left_out %}{{ m.transfer.left_out.values()|sum|number }} rows of the source are left out:
{% for reason, count in m.transfer.left_out.items() %}
{{ count|number }} {{ reason|replace("_", " ") }}{{ "." if loop.last else "," }}
{% endfor %}{% endif %}
{% if m.transfer.only_class %}Every one of them is {{ m.transfer.only_class }}: AUC needs both classes.{% endif %}</p>
<div class="scroll"><table>
{{ head("", "#rows", "#accuracy", "#precision", "#recall", "#F1", "#AUC", "#log loss", "#ECE") }}
{% for name, split in [("transfer", m.transfer), ("test", m.test)] %}
<tr><td>{{ name }}</td>{{ cells(split.rows|number, split.accuracy|percent, split.precision|percent, split.recall|percent,
split.f1|percent, split.auc|number(4), split.log_loss|number(4), split.ece|percent) }}</tr>
{% endfor %}
</table></div>
{% if m.transfer.confusion %}<div class="plots">{{ confusion(m.transfer.confusion) }}</div>{% endif %}
{{ figures(transfer_plots) }}
</section>
{% endif %}

{% if m.export or m.latency %}
<section><h2>Export and speed</h2>
{% if m.export %}
<div class="scroll"><table>
{{ head("form", "#agrees with torch", "#largest difference", "#headlines a second", "#MB") }}
{% for form in ["torch", "fp32", "int8"] if m.export[form] %}
<tr><td>{{ form }}</td>{{ cells(m.export[form].agreement|percent, m.export[form].max_difference|number,
m.export[form].per_second|number(0), m.export.size_mb[form]|number(1)) }}</tr>
{% endfor %}
</table></div>
{% endif %}
{% if m.latency %}
<div class="cards">
{{ card("Median", m.latency.single_p50_ms|number(1) ~ " ms", "one headline") }}
{{ card("95th percentile", m.latency.single_p95_ms|number(1) ~ " ms", "one headline") }}
{{ card("Throughput", m.latency.batch16_per_second|number(0) ~ " / s", "headlines, batches of 16, threads: " ~ m.latency.threads|number) }}
</div>
{% endif %}
</section>
{% endif %}

{% if m.worst %}
<section><h2>Worst errors</h2>
<div class="scroll"><table>
{{ head("headline", "label", "~P(clickbait)") }}
{% for error in m.worst %}
<tr><td class="headline"><bdi>{{ error.text }}</bdi></td><td>{{ label(error.label) }}</td>
<td>{{ bar(error.score, "clickbait") }}{{ error.score|percent(1) }}</td></tr>
{% endfor %}
</table></div></section>
{% endif %}
"""
