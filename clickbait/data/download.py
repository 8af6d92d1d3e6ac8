"""The 32,000 headlines of Chakraborty et al. 2016 as one csv: from Kaggle, else from the authors' repository.
`invoke download-data`.

    python -m clickbait.data.download data

"Stop Clickbait: Detecting and Preventing Clickbaits in Online News Media", ASONAM 2016. MIT licence; cite the
paper. What comes is verified: 15,999 clickbait and 16,001 news, and a digest over the normalised headlines,
which no order or layout moves.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import gzip
import hashlib
import io
import sys
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from clickbait import cli, storage, telemetry, text
from clickbait.errors import DataError

FILE = "clickbait_data.csv"
KAGGLE = "amananandrai/clickbait-dataset"
AUTHORS = "https://raw.githubusercontent.com/bhargaviparanjape/clickbait/master/dataset"
AUTHORS_FILES = {"clickbait_data.gz": 1, "non_clickbait_data.gz": 0}  # one headline a line
CLICKBAIT, NEWS = 15_999, 16_001
# of the sorted keys and labels (`digest`)
DIGEST = "beb6e7ef3d61aa37af3c8d3f7dc416d74911a73e90e95f340b0e7f89a9d969b5"
SECONDS = 30.0
MAX_BYTES = 16 << 20  # the csv has 2 MB: what is larger is something else

Rows = list[tuple[str, int]]


def download(folder: str | Path, authors: str = AUTHORS) -> Path:
    """Writes `clickbait_data.csv` into `folder`, in one step, and returns its path. What is there already and
    verifies is left alone.

    `authors` is the base URL of the authors' files.

    Raises:
        DataError: no network, or what came is not the set; the message says how to get it by hand.
        StorageError: the folder cannot be written.
    """
    path = Path(folder) / FILE
    if path.exists():
        if problem := verify(_parse(path.read_bytes())):
            raise DataError(
                f"{path}: there already, and not the 32,000-headline set ({problem}): move it away"
            )
        return path
    told = []
    ways: dict[str, Callable[[], Rows]] = {
        "Kaggle": _from_kaggle,
        "the authors' repository": lambda: _from_authors(authors),
    }
    for where, fetch in ways.items():
        try:
            rows = fetch()
        except DataError as error:
            told.append(f"{where}: {error}")
        except Exception as error:  # kagglehub raises what its HTTP library raises
            told.append(f"{where}: {type(error).__name__}")
        else:
            if not (problem := verify(rows)):
                storage.open_storage(str(folder)).write(FILE, _csv(rows))
                return path
            told.append(f"{where}: {problem}")
    raise DataError(
        f"the headlines cannot be downloaded ({'; '.join(told)}): get {FILE} by hand from "
        f"https://www.kaggle.com/datasets/{KAGGLE} and put it at {path}"
    )


def verify(rows: Rows) -> str | None:
    """What is wrong with the rows, or None: they are the set."""
    counts = [sum(label == wanted for _, label in rows) for wanted in (1, 0)]
    if counts != [CLICKBAIT, NEWS]:
        return (
            f"it has {counts[0]:,} clickbait and {counts[1]:,} news headlines, not {CLICKBAIT:,} and {NEWS:,}"
        )
    if digest(rows) != DIGEST:
        return "its headlines are not the known ones"
    return None


def digest(rows: Rows) -> str:
    """SHA-256 over the sorted keys (`clickbait.text.key`) with their labels."""
    return hashlib.sha256(
        b"".join(sorted(text.key(headline) + bytes([label]) for headline, label in rows))
    ).hexdigest()


def _from_kaggle() -> Rows:
    telemetry.off()
    import kagglehub  # slow, and only here

    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(io.StringIO()):
        folder = Path(kagglehub.dataset_download(KAGGLE, output_dir=scratch))
        found = next(iter(sorted(folder.rglob(FILE))), None)
        if found is None:
            raise DataError(f"no {FILE} in the dataset {KAGGLE}")
        return _parse(found.read_bytes())


def _from_authors(base: str) -> Rows:
    rows: Rows = []
    for name, label in AUTHORS_FILES.items():
        # An opener of its own: `urlopen` keeps the first one's proxies for the life of the process.
        with urllib.request.build_opener().open(f"{base}/{name}", timeout=SECONDS) as answer:
            packed = answer.read(MAX_BYTES)
        try:
            lines = gzip.decompress(packed).decode().splitlines()
        except (EOFError, OSError, UnicodeDecodeError, zlib.error) as error:
            raise DataError(f"{name} is not whole: {error}") from None
        rows += [(line.strip(), label) for line in lines if line.strip()]
    return rows


def _parse(data: bytes) -> Rows:
    """The rows of a csv in Kaggle's layout; those that do not fit are left out, and the counts tell."""
    rows: Rows = []
    with contextlib.suppress(csv.Error):
        for record in csv.reader(io.StringIO(data.decode("utf-8-sig", "replace"), newline="")):
            if len(record) == 2 and record[1] in ("0", "1"):
                rows.append((record[0], int(record[1])))
    return rows


def _csv(rows: Rows) -> bytes:
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(["headline", "clickbait"])
    writer.writerows(rows)
    return sink.getvalue().encode()


def main(args: Sequence[str] | None = None) -> int:
    """`python -m clickbait.data.download [folder]`; the exit code is `clickbait.cli.Code`."""
    return cli.exit_code(lambda: _run(sys.argv[1:] if args is None else args))


def _run(args: Sequence[str]) -> None:
    parser = cli.Parser(prog="python -m clickbait.data.download", description=__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", nargs="?", default="data", help=f"where {FILE} is written (%(default)s)")
    print(download(parser.parse_args(args).folder))


if __name__ == "__main__":
    sys.exit(main())
