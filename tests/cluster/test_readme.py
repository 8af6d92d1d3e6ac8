"""A reader who has only cluster/README.md finds everything in place; and the check that says so sees what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import readme_check
from cluster.readme_check import PAGE, faults


def test_everything_that_the_page_names_is_there() -> None:
    assert faults() == []


@pytest.mark.parametrize(
    ("there", "instead", "said"),
    [
        (".venv/bin/inv promote", ".venv/bin/inv promot", "inv promot: no such task"),
        ("--service api", "--servise api", "inv deploy-cloudrun: no flag --servise"),
        ("--bundle artifacts/demo/bundle", "--bundel artifacts/demo/bundle", "promote: no flag --bundel"),
        ("-m cluster.manifests", "-m cluster.manifest", "python -m cluster.manifest: no such module"),
        ("--live", "--alive", "python -m cluster.manifests: no flag --alive"),
        ("--overlay gke-gpu", "--overlay gke-tpu", "--overlay gke-tpu: not in cluster/kuberay/overlays"),
        ("--job preprocess", "--job prepare", "--job prepare: not a job of the overlay gke"),
        ("make demo\n", "make demon\n", "make demon: no such target"),
        ("output -raw registry", "output -raw register", "terraform output register: no such output"),
        ("-var keep_buckets=false", "-var keep_bucket=false", "terraform -var keep_bucket: no such variable"),
        (
            "-target=google_storage_bucket.clickbait",
            "-target=google_storage_bucket.models",
            "google_storage_bucket.models: no such resource",
        ),
        ("terraform -chdir=cluster/terraform init", "terraform init", "-chdir=cluster/terraform is needed"),
        ("--target serve", "--target server", "docker build --target server: no such target"),
        ("generic ray-auth --from-literal=auth_token", "generic ray-auth --from-literal=token", "secret ray-auth with key token"),
        ("export KEY=", "export KEYS=", "$KEY: used in"),
        ("`curl` and `openssl`", "`curl`", "openssl: not among what the page says is needed"),
        ("cluster/l4_zones.json", "cluster/l4.json", "cluster/l4.json: not there"),
        ("(../docs/jobs.md)", "(../docs/job.md)", "link ../docs/job.md: not there"),
    ],
)
def test_what_is_not_there_is_seen(tmp_path: Path, there: str, instead: str, said: str) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert there in text
    page = tmp_path / "cluster" / "README.md"  # links start from the folder of the page
    page.parent.mkdir()
    (tmp_path / "docs").symlink_to(PAGE.parents[1] / "docs")
    page.write_text(text.replace(there, instead), encoding="utf-8")
    found = faults(page)
    assert any(said in line for line in found), found


def test_substitutions_pipes_and_continued_lines_are_commands_of_their_own() -> None:
    (line,) = readme_check.split("export A=$(git rev-parse \\\n  HEAD) # why\n# a comment\n")
    assert [words[0] for words in readme_check.simple(line)] == ["git", "export"]
    assert [words[0] for words in readme_check.simple("printf %s x | gcloud secrets &")] == ["printf", "gcloud"]


def test_the_script_ends_with_one_where_something_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("You need `gcloud`.\n\n## How\n\n```sh\nhelm install x\n```\n", encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["readme_check", str(page)])
    assert readme_check.main() == 1
    captured = capsys.readouterr()
    assert captured.err == "page.md: helm: not among what the page says is needed\n"
