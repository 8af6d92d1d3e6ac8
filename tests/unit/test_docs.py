"""README and docs agree with the code: links, commands, files, tables of settings, and plain words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from clickbait.config import GateConfig
from clickbait.data.headlines import REASONS
from cluster.readme_check import tasks
from cluster.shell import module_file
from serve.http.api import STATUS
from serve.settings import PREFIX, Settings
from tests.conftest import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """The page's headings as the site and GitHub name them."""
    headings = re.findall(r"^#+ (.+)$", read(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def rows(name: str, first: str) -> list[list[str]]:
    """The cells of each row, backticks off, of the table in docs/`name` whose first heading is `first`."""
    _, _, rest = read(ROOT / "docs" / name).partition(f"| {first} |")
    assert rest, f"docs/{name} has no table that starts with {first}"
    table = rest.split("\n\n")[0].splitlines()[2:]
    return [[cell.strip().strip("`") for cell in line.strip("| ").split(" | ")] for line in table]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", read(page)):
        path, _, anchor = target.partition("#")
        there = page.parent / path if path else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page: Path) -> None:
    text = read(page)
    ours = r"(?:ray_jobs|clickbait|serve|tuning)\.(?!yaml)[\w.]*\w"
    for module in re.findall(rf"python -m ({ours})", text):
        assert module_file(module) is not None, module
    for name in re.findall(rf"`({ours})\b(?!\()", text):
        path = ROOT / name.replace(".", "/")
        module = path.parent.with_suffix(".py")
        is_function = module.is_file() and f"def {path.name}(" in read(module)
        assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file() or is_function, name
    files = re.findall(
        r"(?<![\w./-])((?:configs|clickbait|serve|ray_jobs|tuning|tests|docs|\.ci)/[\w./-]*\w)", text
    )
    assert not [file for file in files if not (ROOT / file).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_are_there(page: Path) -> None:
    text = read(page)
    targets = set(re.findall(r"^([a-z][a-z-]*):(?!=)", read(ROOT / "Makefile"), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z][a-z-]*\b)(?!-)", text, re.MULTILINE)) <= targets
    assert set(re.findall(r"(?:^|`|/)inv ([a-z][a-z-]*)", text, re.MULTILINE)) <= tasks().keys()


def test_the_page_of_errors_is_the_table_that_the_server_answers_by() -> None:
    elsewhere = {("404", "NotFound"), ("405", "MethodNotAllowed"), ("500", "InternalError")}
    listed = {(row[0], row[1]) for row in rows("http.md", "status")}
    assert listed == elsewhere | {(str(status), error.__name__) for error, status in STATUS.items()}


def test_the_page_of_settings_has_every_variable_with_its_default() -> None:
    listed = {row[0]: row[1] for row in rows("serving.md", "variable")}
    fields = {f"{PREFIX}{name}".upper(): field.default for name, field in Settings.model_fields.items()}
    assert listed.keys() == fields.keys()
    assert {name: text for name, text in listed.items() if fields[name] is not None} == {
        name: str(value) for name, value in fields.items() if value is not None
    }


def test_the_page_of_the_gate_has_every_bound() -> None:
    bounds = yaml.safe_load(read(ROOT / "configs" / "gate.yaml"))
    assert bounds.keys() == GateConfig.model_fields.keys()
    assert {row[0]: yaml.safe_load(row[1]) for row in rows("registry.md", "key")} == bounds


def test_the_page_of_quarantine_has_every_reason() -> None:
    assert [row[0] for row in rows("pipeline.md", "reason")] == list(REASONS)


ODD = {
    "mend": r"mend(s|ed|ing)?",
    "hangs on": r"(hang|hangs|hung) on",
    "to be had": r"to be had",
    "who is not": r"who (is|are) not",
    "told": r"told",
    "anew": r"anew",
    "to who": r"(to|for) who",
    "nobody's": r"nobody's",
    "whoever": r"whoever",
    "asks again at once": r"asks? again at once",
    "likewise, hence": r"likewise|hence",
    "in other company": r"in other company",
    "a line a request": r"a (line|row|trial|run|task|replica|connection|hop) (a|an|each) \w+",
    "a hole": r"holes?",
    "by way of": r"by way of",
    "give or take": r"give or take",
}
"""What docs/development.md asks not to write, and the pattern that finds it, in any case."""


def prose(page: Path) -> str:
    """The page without code, and without the table of odd words itself."""
    text = re.sub(r"^```.*?^```|`[^`]*`", "", read(page), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"\| do not write \|.*?\n\n", "", text, flags=re.DOTALL)


def test_the_page_of_style_lists_every_odd_word_with_a_plain_one() -> None:
    table = rows("development.md", "do not write")
    assert [row[0] for row in table] == list(ODD)
    assert all(row[1] for row in table)


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "cluster" / "README.md"], ids=lambda page: str(page.relative_to(ROOT))
)
def test_a_page_is_free_of_odd_words(page: Path) -> None:
    lines = prose(page).replace("\n", " ")
    matches = {
        word: [match[0] for match in re.finditer(rf"(?i)\b(?:{pattern})\b", lines)]
        for word, pattern in ODD.items()
    }
    assert not {word: texts for word, texts in matches.items() if texts}
