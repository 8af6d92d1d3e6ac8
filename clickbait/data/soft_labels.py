"""Headlines with the teachers' scores: a sealed folder that `tuning.distil` writes.

    <output>/<fingerprint>/part-00000-<id>.parquet   headline, label (-1: none), input_ids, length, margin,
                                                     origin
                           manifest.json  _SUCCESS

`<id>` depends on the part's bytes, so that two jobs at once never write over each other's parts. `margin`
is the teachers' logit of clickbait less their logit of news, calibrated, the mean over the teachers; float32.
`origin` says how the headline was made.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clickbait.data.dataset import Dataset, parquet_bytes
from clickbait.errors import DataError
from clickbait.storage.sealed_folder import SealedFolder, sha256

SCHEMA = pa.schema(
    [
        ("headline", pa.string()),
        ("label", pa.int8()),
        ("input_ids", pa.list_(pa.int32())),
        ("length", pa.int16()),
        ("margin", pa.float32()),
        ("origin", pa.string()),
    ]
)
PART_ROWS = 100_000
COMMAND = "python -m tuning.distil"


@dataclass(frozen=True)
class SoftLabels:
    """A whole set of soft labels, from `open_soft`."""

    uri: str
    manifest: dict[str, Any]

    def table(self, columns: Sequence[str]) -> pa.Table:
        """The rows of all parts, in order.

        Raises:
            DataError: a part is missing or its SHA-256 is not the manifest's.
        """
        folder = sealed(self.uri)
        return pa.concat_tables(
            pq.read_table(io.BytesIO(folder.read(key, self.manifest)), columns=list(columns)).select(
                list(columns)
            )
            for key in sorted(self.manifest["files"])
        )


def sealed(uri: str) -> SealedFolder:
    """The folder of a set of soft labels, whole or in the making."""
    return SealedFolder(uri, "set of soft labels", COMMAND)


def write(uri: str, table: pa.Table, about: dict[str, Any]) -> None:
    """Writes the rows (SCHEMA) and `about` to the folder `uri`, and seals it.

    A whole set that another job wrote in the meantime stays.
    """
    folder = sealed(uri)
    files = {}
    for number, start in enumerate(range(0, len(table), PART_ROWS)):
        data = parquet_bytes(table.slice(start, PART_ROWS))
        digest = sha256(data)
        key = f"part-{number:05d}-{digest[:12]}.parquet"
        folder.put(key, data)
        files[key] = digest
    folder.seal({**about, "rows": len(table), "files": files})


def open_soft(uri: str, dataset: Dataset) -> SoftLabels:
    """The set in the folder `uri`, whose token ids are those of `dataset`'s tokenizer.

    Raises:
        DataError: no whole set there, or the set of another dataset.
    """
    manifest = sealed(uri).manifest()
    if manifest["dataset"] != dataset.fingerprint:
        raise DataError(
            f"{uri}: soft labels of dataset {manifest['dataset']}, not {dataset.fingerprint}: "
            f"run {COMMAND} again"
        )
    return SoftLabels(uri, manifest)
