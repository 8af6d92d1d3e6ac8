"""Downloading the headlines: from Kaggle, else from the authors, verified, or one line that says how to get
them by hand.
"""

from __future__ import annotations

import functools
import gzip
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clickbait.config import PreprocessConfig
from clickbait.data import download, sources
from clickbait.errors import DataError

ROWS = [("Ten maps, folded", 1), ('You "will" see', 1), ("Council votes on maps", 0)]


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three headlines stand for the 32,000."""
    monkeypatch.setattr(download, "CLICKBAIT", 2)
    monkeypatch.setattr(download, "NEWS", 1)
    monkeypatch.setattr(download, "DIGEST", download.digest(ROWS))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request goes to a proxy that is not there: the real libraries fail as without a network."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # discard: nobody listens
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def authors(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """An HTTP server with a folder, as the authors' repository is one: its URL and the folder."""
    folder = tmp_path / "authors"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()
        thread.join()


def publish(folder: Path, rows: list[tuple[str, int]]) -> None:
    for name, label in download.AUTHORS_FILES.items():
        lines = "\n\n".join(
            headline for headline, called in rows if called == label
        )  # they leave every other line blank
        (folder / name).write_bytes(gzip.compress(f"{lines}\n".encode()))


def kaggle_with(rows: list[tuple[str, int]]) -> Any:
    """Keeps of `kagglehub.dataset_download` that it writes the dataset's files below a folder and returns
    that.
    """

    def dataset_download(handle: str, output_dir: str) -> str:
        assert handle == download.KAGGLE
        (Path(output_dir) / "clickbait_data.csv").write_bytes(download._csv(rows))
        return output_dir

    return dataset_download


def rows_of(path: Path) -> list[tuple[str, int]]:
    config = PreprocessConfig(source=str(path))
    return [
        (row["headline"].decode(), int(row["label"]))
        for table in sources.read(sources.pieces(config)[0], config)
        for row in table.to_pylist()
    ]


@pytest.mark.usefixtures("known")
def test_from_kaggle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import kagglehub

    monkeypatch.setattr(kagglehub, "dataset_download", kaggle_with(ROWS))
    path = download.download(tmp_path / "data", authors="http://127.0.0.1:9")
    assert path == tmp_path / "data" / "clickbait_data.csv"
    assert rows_of(path) == ROWS


@pytest.mark.usefixtures("known", "no_network")
def test_from_the_authors_where_kaggle_cannot_be_reached(tmp_path: Path, authors: tuple[str, Path]) -> None:
    publish(authors[1], ROWS)
    assert rows_of(download.download(tmp_path / "data", authors=authors[0])) == ROWS


@pytest.mark.usefixtures("known")
def test_another_set_on_kaggle_is_not_taken(
    tmp_path: Path, authors: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import kagglehub

    monkeypatch.setattr(kagglehub, "dataset_download", kaggle_with([("Changed", 1), *ROWS[1:]]))
    publish(authors[1], list(reversed(ROWS)))  # another order is the same set
    assert sorted(rows_of(download.download(tmp_path / "data", authors=authors[0]))) == sorted(ROWS)


@pytest.mark.usefixtures("known", "no_network")
@pytest.mark.parametrize(
    ("rows", "cut", "message"),
    [
        (ROWS[:2], None, "it has 2 clickbait and 0 news headlines, not 2 and 1"),
        ([*ROWS[:2], ("Another", 0)], None, "its headlines are not the known ones"),
        (ROWS, -5, "clickbait_data.gz is not whole"),
    ],
)
def test_what_does_not_verify_is_not_written(
    tmp_path: Path, authors: tuple[str, Path], rows: list[tuple[str, int]], cut: int | None, message: str
) -> None:
    publish(authors[1], rows)
    packed = authors[1] / "clickbait_data.gz"
    packed.write_bytes(packed.read_bytes()[:cut])
    with pytest.raises(DataError, match=message):
        download.download(tmp_path / "data", authors=authors[0])
    assert not (tmp_path / "data").exists()


@pytest.mark.usefixtures("no_network")
def test_without_network_one_line_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        download.download(tmp_path / "data")
    message = str(caught.value)
    assert "\n" not in message
    assert "kaggle.com/datasets/amananandrai/clickbait-dataset" in message
    assert str(tmp_path / "data" / "clickbait_data.csv") in message
    assert not (tmp_path / "data").exists()


@pytest.mark.usefixtures("known", "no_network")
def test_what_is_there_is_verified_and_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "clickbait_data.csv"
    path.write_bytes(download._csv(ROWS))
    assert download.download(tmp_path) == path
    path.write_bytes(download._csv(ROWS[:2]))
    with pytest.raises(DataError, match="move it away"):
        download.download(tmp_path)
    assert path.read_bytes() == download._csv(ROWS[:2])


def test_the_real_set_verifies(data_dir: Path) -> None:
    rows = download._parse((data_dir / "stop-clickbait" / "clickbait_data.csv").read_bytes())
    assert download.verify(rows) is None
    assert download.verify(rows[1:]) is not None
