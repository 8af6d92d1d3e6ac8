"""Headlines with a teacher's scores on disk: named by their content, whole once `_SUCCESS` is there.
`tuning.distil` writes them.

    <output>/<fingerprint>/part-00000-<id>.parquet   headline, label (-1: none), input_ids, length, margin, origin
                           manifest.json  _SUCCESS (last; the manifest's SHA-256)

`<id>` follows from the part's bytes, so that two jobs at once never write over each other's parts. `margin`
is the teachers' logit of clickbait less their logit of news, calibrated, the mean over the teachers; float32.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clickbait import storage
from clickbait.data.dataset import MANIFEST, SUCCESS, Dataset, is_whole, parquet_bytes, sha256
from clickbait.errors import DataError, NotFound

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
MENDED = "run python -m tuning.distil again"


@dataclass(frozen=True)
class SoftLabels:
    """A whole set; `open_soft` gives it."""

    uri: str
    manifest: dict[str, Any]

    def table(self, columns: Sequence[str]) -> pa.Table:
        """The rows of all parts, in order.

        Raises:
            DataError: a part is missing or its SHA-256 is not the manifest's.
        """
        store = storage.open_storage(self.uri)
        tables = []
        for name, digest in sorted(self.manifest["files"].items()):
            try:
                data = store.read(name)
            except NotFound:
                raise DataError(
                    f"{storage.join(self.uri, name)}: missing: remove the folder, then {MENDED}"
                ) from None
            if sha256(data) != digest:
                raise DataError(
                    f"{storage.join(self.uri, name)}: its SHA-256 is not the manifest's: remove the folder, "
                    f"then {MENDED}"
                )
            tables.append(pq.read_table(io.BytesIO(data), columns=list(columns)).select(list(columns)))
        return pa.concat_tables(tables)


def write(uri: str, table: pa.Table, about: dict[str, Any]) -> None:
    """Writes the rows (SCHEMA) and `about` to the folder `uri`, `_SUCCESS` last. A whole set that another job
    wrote meanwhile stays.
    """
    store = storage.open_storage(uri)
    files = {}
    for number, start in enumerate(range(0, len(table), PART_ROWS)):
        data = parquet_bytes(table.slice(start, PART_ROWS))
        digest = sha256(data)
        name = f"part-{number:05d}-{digest[:12]}.parquet"
        store.write(name, data)
        files[name] = digest
    if is_whole(uri):
        return
    manifest = json.dumps({**about, "rows": len(table), "files": files}, indent=2, sort_keys=True).encode()
    store.write(MANIFEST, manifest)
    store.write(SUCCESS, sha256(manifest).encode())


def open_soft(uri: str, dataset: Dataset) -> SoftLabels:
    """The set in the folder `uri`, tokenized as `dataset` is.

    Raises:
        DataError: no whole set there, or of another dataset.
    """
    store = storage.open_storage(uri)
    try:
        success, data = store.read(SUCCESS).decode(errors="replace").strip(), store.read(MANIFEST)
    except NotFound:
        raise DataError(f"{uri}: no whole set of soft labels there: {MENDED}") from None
    if sha256(data) != success:
        raise DataError(
            f"{uri}/{MANIFEST}: its SHA-256 is not the one in {SUCCESS}: remove the folder, then {MENDED}"
        )
    manifest: dict[str, Any] = json.loads(data)
    if manifest["dataset"] != dataset.fingerprint:
        raise DataError(
            f"{uri}: soft labels of dataset {manifest['dataset']}, not {dataset.fingerprint}: {MENDED}"
        )
    return SoftLabels(uri, manifest)
