"""A model version on disk: a folder of files and, written last, the `manifest.json` that names each with its size and SHA-256.

    manifest = seal(Path("artifacts/bundle"), name="clickbait-model", ...)   # export: a draft, it has no version yet
    manifest = amend(folder, verdict={...})                                  # evaluate and the gate add what they found
    manifest = verify(folder)                                                # whoever loads it, before a file is opened

`clickbait.registry` publishes a draft as a version, and from then on it does not change. Hidden files (`.lock`, `.DS_Store`) are no
part of a bundle.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from clickbait.errors import BundleError
from clickbait.storage import BUFFER, replacing

MANIFEST = "manifest.json"
_PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".joblib", ".ckpt"})
_MEND = "fetch the version again, or export it again"


def _is_below(name: str) -> str:
    if not name or "\0" in name or "\\" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise ValueError(f"{name!r} leaves the folder")
    return name


FileName = Annotated[str, AfterValidator(_is_below)]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class FileEntry(_Frozen):
    """What a file must be, byte for byte."""

    size: int = Field(ge=0)
    """Bytes."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the bytes, hexadecimal."""


class Manifest(_Frozen):
    """`manifest.json`: what the model is, where it is from, what it scored, and every file."""

    schema_version: int = Field(default=1, ge=1, le=1)
    """The form of this file."""
    name: str
    """The model's name, `clickbait-model`."""
    version: str | None = Field(default=None, pattern=r"^v[1-9][0-9]*$")
    """`v3`, or None for a draft that is not published."""
    created_at: str
    """When it was exported: ISO 8601, UTC."""
    base_model: str
    """The encoder that was fine-tuned."""
    synthetic: bool
    """Whether it was trained on generated headlines."""
    labels: tuple[str, ...] = ("news", "clickbait")
    """The classes in the order of the logits."""
    max_tokens: int = Field(ge=1)
    """Tokens the model reads of a headline."""
    max_characters: int = Field(ge=1)
    """The longest headline it was trained on, after cleaning."""
    threshold: float = Field(default=0.5, ge=0.0, le=1.0)
    """A score at or above it is clickbait."""
    temperature: float = Field(default=1.0, gt=0.0)
    """Logits are divided by it before softmax."""
    runtimes: dict[str, FileName]
    """Runtime to its file: `int8`, `fp32`."""
    default_runtime: str
    """The runtime that is served."""
    config: dict[str, Any]
    """The training configuration."""
    dataset: str
    """The dataset's fingerprint."""
    git_commit: str | None
    """The commit that trained it, where it is known."""
    metrics: dict[str, float | None]
    """What it scored on the test split."""
    verdict: dict[str, Any] | None
    """What the gate said, check by check."""
    files: dict[FileName, FileEntry]
    """Every file but this one."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.default_runtime not in self.runtimes:
            raise ValueError(f"default_runtime {self.default_runtime!r} is none of runtimes {sorted(self.runtimes)}")
        for file in self.runtimes.values():
            if file not in self.files:
                raise ValueError(f"runtimes name {file}, which is not among files")
        if MANIFEST in self.files:
            raise ValueError(f"{MANIFEST} cannot hold its own hash")
        return self


def seal(folder: Path, **fields: Any) -> Manifest:
    """Hashes every file in `folder` and writes its manifest, last and in one step. `fields` are `Manifest`'s, less `files`.

    Raises:
        BundleError: a pickle is among the files, or the fields do not fit.
    """
    files = {}
    for name in _names(folder):
        _refuse_pickle(folder / name)
        files[name] = FileEntry(size=(folder / name).stat().st_size, sha256=sha256(folder / name))
    try:
        manifest = Manifest(**fields, files=files)
    except ValidationError as error:
        raise BundleError(f"{folder}: {_explained(error)}; export it again") from None
    with replacing(folder / MANIFEST) as temporary:
        temporary.write_bytes(encoded(manifest))
    return manifest


def amend(folder: Path, **changes: Any) -> Manifest:
    """Seals a draft again after files were added or changed, with `changes` in its manifest.

    Raises:
        BundleError: it is a published version, no bundle, or the changes do not fit.
    """
    manifest = read_manifest(folder)
    if manifest.version is not None:
        raise BundleError(f"{folder}: {manifest.version} is published and does not change; export a new bundle")
    return seal(folder, **{**manifest.model_dump(exclude={"files"}), **changes})


def encoded(manifest: Manifest) -> bytes:
    """The manifest as the bytes of its file."""
    return (manifest.model_dump_json(indent=2) + "\n").encode()


def decoded(data: bytes, where: str) -> Manifest:
    """The manifest in the bytes of the file at `where`.

    Raises:
        BundleError: torn, not JSON, or a field that does not fit.
    """
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        raise BundleError(f"{where}: not a bundle's manifest: {_explained(error)}; {_MEND}") from None


def read_manifest(folder: Path) -> Manifest:
    """The manifest in `folder`; the files are not looked at.

    Raises:
        BundleError: there is none, or it is torn.
    """
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}; export a bundle first, or check the path") from None
    return decoded(data, str(path))


def verify(folder: Path) -> Manifest:
    """The manifest of `folder`, once every file is found to be what it says, byte for byte, and nothing else is there.

    Raises:
        BundleError: the file that is missing, changed, not listed or a pickle, and what to do.
    """
    manifest = read_manifest(folder)
    there = set(_names(folder))
    for name in sorted(there - manifest.files.keys()):
        raise BundleError(f"{folder / name}: not in the manifest; {_MEND}")
    # Sizes of all first: they are free, and what was cut short shows at once.
    for name, entry in manifest.files.items():
        if name not in there:
            raise BundleError(f"{folder / name}: missing; {_MEND}")
        size = (folder / name).stat().st_size
        if size != entry.size:
            raise BundleError(f"{folder / name}: {size} bytes where the manifest says {entry.size}; {_MEND}")
    for name, entry in manifest.files.items():
        _refuse_pickle(folder / name)
        if sha256(folder / name) != entry.sha256:
            raise BundleError(f"{folder / name}: its SHA-256 is not the manifest's, so bytes changed; {_MEND}")
    return manifest


def is_pickle(path: Path) -> bool:
    """Whether `path` may be a pickle: by its name, or a `.safetensors` that begins as a pickle or as torch's zip of pickles does."""
    if path.suffix.lower() in _PICKLES:
        return True
    if path.suffix.lower() != ".safetensors":
        return False
    with path.open("rb") as file:
        head = file.read(9)
    return re.match(rb"PK|\x80[\x02-\x05]", head) is not None and not _is_header(head)


def sha256(path: Path) -> str:
    """SHA-256 of the file's bytes, hexadecimal, read a piece at a time."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(BUFFER):
            digest.update(piece)
    return digest.hexdigest()


def _is_header(head: bytes) -> bool:
    """Whether a safetensors file begins so: 8 bytes with the length of its JSON, little-endian, then the brace.

    A length of 0x280 to 0x580 alone would look like a pickle's first bytes, and one of 0x4B50 like a zip's.
    """
    longest = 100_000_000  # safetensors' own bound
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") <= longest


def _names(folder: Path) -> Iterator[str]:
    """Every file below `folder` but the manifest and hidden ones, with "/" between folders."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            relative = (Path(root) / name).relative_to(folder).as_posix()
            if not name.startswith(".") and relative != MANIFEST:
                yield relative


def _refuse_pickle(path: Path) -> None:
    if is_pickle(path):
        raise BundleError(f"{path}: a pickle can run code when it is opened; export it again as safetensors or ONNX")


def _explained(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    name = ".".join(str(part) for part in problem["loc"])
    return f"{name}: {problem['msg']}" if name else problem["msg"].removeprefix("Value error, ")
