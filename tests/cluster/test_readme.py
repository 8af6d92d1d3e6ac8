"""A reader who has only cluster/README.md finds everything in place; and the check that says so sees what is
not.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import readme_check
from cluster.readme_check import PAGE, faults, order

APPLY = "kubectl apply --server-side --force-conflicts --filename"


def test_everything_that_the_page_names_is_there() -> None:
    assert faults() == []


@pytest.mark.parametrize(
    ("there", "instead", "said"),
    [
        (".venv/bin/inv cloud-bench", ".venv/bin/inv cloud-banch", "inv cloud-banch: no such task"),
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
        (
            "generic ray-auth --from-literal=auth_token",
            "generic ray-auth --from-literal=token",
            "secret ray-auth with key token",
        ),
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


def test_the_page_can_be_walked_in_its_order() -> None:
    assert order() == []


def reordered(page: Path, moved: str, before: str) -> list[str]:
    """What the walk says where the line `moved` stands after the line that starts with `before`."""
    text = PAGE.read_text(encoding="utf-8")
    (line,) = [each for each in text.splitlines() if each.startswith(moved)]
    late = next(each for each in text.splitlines() if each.startswith(before))
    page.write_text(
        text.replace(f"{line}\n", "", 1).replace(f"{late}\n", f"{late}\n{line}\n", 1), encoding="utf-8"
    )
    return order(page)


@pytest.mark.parametrize(
    ("moved", "behind", "said"),
    [
        (
            "make install",
            ".venv/bin/inv cloud-check",
            "needs the tools of make install",
        ),
        ("gcloud auth login", "terraform -chdir=cluster/terraform init", "needs a login with gcloud"),
        ("gcloud services enable", "gcloud storage buckets create", "needs the first services"),
        (
            "terraform -chdir=cluster/terraform apply clickbait.tfplan",
            "gcloud container clusters",
            "needs Terraform's resources",
        ),
        ("docker push $IMAGES/clickbait-serve", f"{APPLY} artifacts/gke", "needs pushed"),
        ("kubectl create namespace", "kubectl --namespace clickbait create secret", "needs the namespace"),
        ("gcloud storage cp headlines.csv", f"{APPLY} artifacts/preprocess", "headlines"),
        (
            "kubectl wait --filename artifacts/preprocess",
            f"{APPLY} artifacts/train",
            "ended",
        ),
        (
            "kubectl wait --filename artifacts/train",
            ".venv/bin/python -m ray_jobs.export",
            "needs ended artifacts/train.yaml",
        ),
    ],
)
def test_a_command_before_what_it_needs_is_seen(tmp_path: Path, moved: str, behind: str, said: str) -> None:
    (found,) = reordered(tmp_path / "README.md", moved, behind)
    assert said in found


def test_a_command_that_no_rule_knows_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("```sh\nhelm install x\n```\n", encoding="utf-8")
    assert order(page) == [
        "helm install x: cluster/readme_walk.py has no rule for it: say there what it needs and gives"
    ]


def test_substitutions_pipes_and_continued_lines_are_commands_of_their_own() -> None:
    (line,) = readme_check.split("export A=$(git rev-parse \\\n  HEAD) # why\n# a comment\n")
    assert [words[0] for words in readme_check.simple(line)] == ["git", "export"]
    assert [words[0] for words in readme_check.simple("printf %s x | gcloud secrets &")] == [
        "printf",
        "gcloud",
    ]


def test_the_script_ends_with_one_where_something_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("You need `gcloud`.\n\n## How\n\n```sh\nhelm install x\n```\n", encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["readme_check", str(page)])
    assert readme_check.main() == 1
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [
        "page.md: helm: not among what the page says is needed",
        "page.md: helm install x: cluster/readme_walk.py has no rule for it: say there what it needs and "
        "gives",
        "refused: page.md: 2 faults: the lines above say which",
    ]
