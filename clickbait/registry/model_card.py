"""Writes the model card, which is the bundle's README.md, and the metrics document beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clickbait.registry import bundle
from clickbait.registry.bundle import Manifest

METRICS = "metrics.json"
SUMMARY = ("accuracy", "precision", "recall", "f1", "auc", "log_loss", "ece")


def read_metrics(folder: Path) -> dict[str, Any]:
    """Reads the bundle's metrics document. Empty if there is none."""
    path = folder / METRICS
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return document


def write(folder: Path, document: Mapping[str, Any], **changes: Any) -> Manifest:
    """Writes the metrics document and the model card into a draft, and updates its manifest by `changes`."""
    manifest = bundle.read_manifest(folder).model_copy(update=changes)
    (folder / METRICS).write_text(json.dumps(document, indent=2), encoding="utf-8")
    (folder / "README.md").write_text(render(manifest, document), encoding="utf-8")
    return bundle.amend(folder, **changes)


def render(manifest: Manifest, metrics: Mapping[str, Any]) -> str:
    """The card as Markdown, with the front matter that the Hugging Face hub reads."""
    test, flips, export = metrics.get("test", {}), metrics.get("flips", {}), metrics.get("export", {})
    transfer, latency = metrics.get("transfer") or {}, metrics.get("latency", {})
    lines = [
        "---",
        "language: en",
        "library_name: onnxruntime",
        "pipeline_tag: text-classification",
        "tags: [clickbait]",
    ]
    lines += [f"base_model: {manifest.base_model.partition('@')[0]}", "---", "", f"# {manifest.name}", ""]
    if manifest.synthetic:
        lines += [
            "**Trained on synthetic headlines: it shows that the pipeline works and is no judge of real "
            "ones.**",
            "",
        ]
    lines += [
        "Says of an English headline how likely it is clickbait: `news` or `clickbait`, with P(clickbait).",
        "",
    ]
    lines += [
        "| | |",
        "| --- | --- |",
        f"| exported | {manifest.created_at} |",
        f"| base model | {manifest.base_model} |",
    ]
    if "parameters" in metrics.get("model", {}):
        lines.append(f"| parameters | {metrics['model']['parameters']:,} |")
    lines += [f"| dataset | {manifest.dataset} |", f"| commit | {manifest.git_commit or 'unknown'} |"]
    lines.append(
        f"| reads | {manifest.max_characters} characters, {manifest.max_tokens} tokens of one headline |"
    )
    lines += [f"| test {name} | {test[name]:.4f} |" for name in SUMMARY if test.get(name) is not None]
    lines += [f"| flips under {name} | {share:.2%} |" for name, share in flips.items()]
    if metrics.get("behaviour"):
        lines.append(
            f"| behaviour | {metrics['behaviour']['passed']} of {metrics['behaviour']['cases']} cases hold |"
        )
    if transfer.get("auc") is not None:
        lines.append(f"| transfer AUC ({transfer['rows']:,} headlines) | {transfer['auc']:.4f} |")
    for form in ("fp32", "int8"):
        if form in export:
            figures = export[form]
            lines.append(
                f"| {form} | {figures['agreement']:.2%} of verdicts as torch, largest difference "
                f"{figures['max_difference']:.2g}, {figures['per_second']:.0f} headlines a second |"
            )
    lines.append(f"| temperature | {manifest.temperature:.3f} |")
    if latency:
        lines.append(
            f"| latency of one headline | {latency['single_p50_ms']:.1f} ms median, "
            f"{latency['single_p95_ms']:.1f} ms p95 |"
        )
    if manifest.verdict:
        lines.append(f"| gate | {manifest.verdict['decision']} |")
    lines += ["", "## Limits", "", "- English headlines; other languages and longer texts were not measured."]
    lines += [
        "- A score is a probability under the training set's mix of sources; another mix asks for another "
        "threshold."
    ]
    lines += ["- It judges wording, not truth.", ""]
    return "\n".join(lines)
