"""A model version on disk: a folder of files and a `manifest.json` with the size and SHA-256 of each.

    manifest = seal(Path("artifacts/bundle"), name="clickbait-model", ...)   # export: a draft has no version
    manifest = amend(folder, verdict={...})                                  # evaluate and the gate add results
    manifest = verify(folder)                                                # before a file is opened

The manifest is written last.
`clickbait.registry` publishes a draft as a version, and from then on it does not change. Hidden files
(`.lock`, `.DS_Store`) are not part of a bundle.

A bundle may come from a stranger. So only regular files of the kinds in `KINDS` are read: no link, FIFO or
device, and no file that is larger than its entry in the manifest says.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from clickbait.errors import BundleError, StorageError
from clickbait.storage import BUFFER, kind, open_regular, replacing
from clickbait.text import LABELS

MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
TORCH = "torch"
"""The runtime that needs torch and transformers: the fine-tuned model itself, for a GPU without
onnxruntime-gpu, or to compare.
"""
KINDS = frozenset({".html", ".json", ".md", ".onnx", ".safetensors"})
"""What a bundle's files are: graphs and weights, and the documents that export, evaluate and the gate
write.
"""
# bytes of a file: an ONNX graph is one protobuf message of 2 GiB at most, and the safetensors hold the same
# weights
LARGEST = 4 << 30
MANIFEST_LARGEST = 16 << 20  # bytes of a manifest: one has some 5,000
_TORCH_FILES = ("config.json", "model.safetensors")
_PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".joblib", ".ckpt"})
_FIX = "fetch the version again, or export it again"


def _is_below(name: str) -> str:
    if not name or "\0" in name or "\\" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise ValueError(f"{name!r} leaves the folder")
    return name


def _is_of_a_kind(name: str) -> str:
    if reason := _unwelcome(name):
        raise ValueError(f"{name!r}: {reason}")
    return name


FileName = Annotated[str, AfterValidator(_is_below), AfterValidator(_is_of_a_kind)]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class FileEntry(_Frozen):
    """What a file must be, byte for byte."""

    size: int = Field(ge=0, le=LARGEST)
    """Bytes."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the bytes, hexadecimal."""


class OptimizedGraph(_Frozen):
    """A runtime's graph, optimised by onnxruntime and with its attention rewritten, for a CPU."""

    file: FileName
    onnxruntime: str
    """The version that optimised it. Other versions compute the runtime's plain graph."""


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
    labels: tuple[str, ...] = LABELS
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
    optimized: dict[str, OptimizedGraph] = Field(default_factory=dict)
    """Runtime to its optimised graph. Bundles of earlier releases have none."""
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
            raise ValueError(
                f"default_runtime {self.default_runtime!r} is none of runtimes {sorted(self.runtimes)}"
            )
        for file in self.runtimes.values():
            if file not in self.files:
                raise ValueError(f"runtimes name {file}, which is not among files")
        for runtime, graph in self.optimized.items():
            if runtime not in self.runtimes:
                raise ValueError(
                    f"optimized names {runtime!r}, which is none of runtimes {sorted(self.runtimes)}"
                )
            if graph.file not in self.files:
                raise ValueError(f"optimized names {graph.file}, which is not among files")
        if MANIFEST in self.files:
            raise ValueError(f"{MANIFEST} cannot hold its own hash")
        return self

    def needed(self, runtime: str | None) -> list[str]:
        """The files that scoring by `runtime` reads, the manifest aside; None: every file.

        Raises:
            BundleError: the bundle has no such runtime.
        """
        if runtime is None:
            return sorted(self.files)
        if runtime != TORCH and runtime not in self.runtimes:
            raise BundleError(
                f'no runtime "{runtime}" in {self.version or "the draft"}, which has '
                f"{', '.join(sorted(self.runtimes))}"
            )
        if runtime == TORCH:
            return sorted({TOKENIZER, *_TORCH_FILES} & self.files.keys())
        graphs = [self.runtimes[runtime]]
        if runtime in self.optimized:
            graphs.append(self.optimized[runtime].file)
        return sorted({TOKENIZER, *graphs} & self.files.keys())


def seal(folder: Path, **fields: Any) -> Manifest:
    """Hashes every file in `folder` and writes its manifest, last and in one step. `fields` are `Manifest`'s,
    less `files`.

    Raises:
        BundleError: a file that no bundle has (a pickle, a link, a FIFO, another kind of file), or the fields
            do not fit.
    """
    files = {}
    for name, size in _scan(folder).items():
        if size > LARGEST:
            raise BundleError(f"{folder / name}: {size:,} bytes; a bundle's file has at most {LARGEST:,}")
        files[name] = FileEntry(size=size, sha256=_checked(folder, name, size))
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
        raise BundleError(
            f"{folder}: {manifest.version} is published and does not change; export a new bundle"
        )
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
        raise BundleError(f"{where}: not a bundle's manifest: {_explained(error)}; {_FIX}") from None


def read_manifest(folder: Path) -> Manifest:
    """The manifest in `folder`; the files are not looked at.

    Raises:
        BundleError: there is none, it is torn, or it is a link, a FIFO or a device.
    """
    path = folder / MANIFEST
    try:
        with _open(path) as file:
            data = file.read(MANIFEST_LARGEST + 1)
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}; export a bundle first, or check the path") from None
    if len(data) > MANIFEST_LARGEST:
        raise BundleError(f"{path}: not a bundle's manifest: more than {MANIFEST_LARGEST:,} bytes; {_FIX}")
    return decoded(data, str(path))


def verify(folder: Path, needed: Collection[str] | None = None) -> Manifest:
    """The manifest of `folder`, once every file is found to be what it says, byte for byte, and nothing else
    is there.

    With `needed`, the bytes of these files alone are checked, and others of the manifest may be missing.

    Raises:
        BundleError: the file that is missing, changed, not listed, a pickle, no regular file, or of a kind
            that no bundle has; and what to do.
    """
    manifest = read_manifest(folder)
    needed = manifest.files.keys() if needed is None else needed
    there = _scan(folder)
    for name in sorted(there.keys() - manifest.files.keys()):
        raise BundleError(f"{folder / name}: not in the manifest; {_FIX}")
    # Sizes of all first: they cost nothing, a file that was cut short shows at once, and a file that is too
    # large is not read.
    for name, entry in manifest.files.items():
        if name in needed and name not in there:
            raise BundleError(f"{folder / name}: missing; {_FIX}")
        if name in there and there[name] != entry.size:
            raise BundleError(
                f"{folder / name}: {there[name]} bytes where the manifest says {entry.size}; {_FIX}"
            )
    for name in needed:
        entry = manifest.files[name]
        if _checked(folder, name, entry.size) != entry.sha256:
            raise BundleError(f"{folder / name}: its SHA-256 is not the manifest's, so bytes changed; {_FIX}")
    return manifest


def is_whole(folder: Path, name: str, entry: FileEntry) -> bool:
    """Whether the file `name` in `folder` is there and is what its entry says."""
    try:
        status = (folder / name).lstat()
        return (
            stat.S_ISREG(status.st_mode)
            and status.st_size == entry.size
            and _checked(folder, name, entry.size) == entry.sha256
        )
    except (OSError, BundleError):
        return False


def is_pickle(path: Path) -> bool:
    """Whether `path` may be a pickle: by its name, or a `.safetensors` that begins as a pickle or as torch's
    zip of pickles does.
    """
    with open_regular(path) as file:
        return _is_pickle(path.name, file)


def sha256(path: Path) -> str:
    """SHA-256 of the file's bytes, hexadecimal, read a piece at a time."""
    with open_regular(path) as file:
        return _digest(file, None)


def _is_pickle(name: str, file: BinaryIO) -> bool:
    suffix = Path(name).suffix.lower()
    if suffix != ".safetensors":
        return suffix in _PICKLES
    head = file.read(9)
    file.seek(0)
    return re.match(rb"PK|\x80[\x02-\x05]", head) is not None and not _is_header(head)


def _digest(file: BinaryIO, size: int | None) -> str:
    """SHA-256 of what is left of `file`, at most `size` bytes of it."""
    digest = hashlib.sha256()
    while piece := file.read(BUFFER if size is None else min(size, BUFFER)):
        digest.update(piece)
        size = None if size is None else size - len(piece)
    return digest.hexdigest()


def _is_header(head: bytes) -> bool:
    """Whether a safetensors file begins so: 8 bytes with the length of its JSON, little-endian, then the
    brace.

    A length of 0x280 to 0x580 alone would look like a pickle's first bytes, and one of 0x4B50 like a zip's.
    """
    longest = 100_000_000  # safetensors' own bound
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") <= longest


def _scan(folder: Path) -> dict[str, int]:
    """Every file below `folder` but the manifest and hidden ones, with "/" between folders, and its bytes. No
    file is opened.

    Raises:
        BundleError: a link, FIFO, socket or device, or a kind of file that no bundle has.
    """
    found = {}
    for name, status in _entries(folder, ""):
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(
                f"{folder / name}: is {kind(status.st_mode)}; a bundle holds regular files only; {_FIX}"
            )
        if reason := _unwelcome(name):
            raise BundleError(f"{folder / name}: {reason}")
        found[name] = status.st_size
    return found


def _entries(folder: Path, below: str) -> Iterator[tuple[str, os.stat_result]]:
    """What is in the folder `below` of `folder` and in the folders there, sorted. Links are not followed."""
    try:
        with os.scandir(folder / below) as entries:
            there = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise BundleError(f"{folder / below}: {error.strerror}; check the path and its owner") from None
    for entry in there:
        name = f"{below}/{entry.name}" if below else entry.name
        if entry.name.startswith(".") or name == MANIFEST:
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _entries(folder, name)
        else:
            yield name, entry.stat(follow_symlinks=False)


def _unwelcome(name: str) -> str | None:
    """Why a file of this name is in no bundle; None if it may be in one."""
    suffix = Path(name).suffix.lower()
    if suffix in _PICKLES:
        return "a pickle can run code when it is opened; export it again as safetensors or ONNX"
    if suffix not in KINDS:
        kinds = ", ".join(sorted(KINDS))
        return (
            f"a bundle has no {suffix or 'such'} files, only {kinds}; remove it, or export the bundle again"
        )
    return None


def _open(path: Path) -> BinaryIO:
    """A bundle's file, which is no link.

    Raises:
        BundleError: it is a link, a folder, a FIFO or a device.
        OSError: it cannot be opened.
    """
    try:
        return open_regular(path, follow=False)
    except StorageError as error:
        raise BundleError(str(error)) from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise BundleError(f"{path}: is a link; a bundle holds regular files only; {_FIX}") from None
        raise


def _checked(folder: Path, name: str, size: int) -> str:
    """SHA-256 of a bundle's file, of which no more than `size` bytes are read.

    Raises:
        BundleError: it is a pickle, or cannot be read.
    """
    path = folder / name
    try:
        with _open(path) as file:
            if _is_pickle(name, file):
                raise BundleError(
                    f"{path}: a pickle can run code when it is opened; export it again as safetensors or ONNX"
                )
            return _digest(file, size)
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}; check the path and its owner") from None


def _explained(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    name = ".".join(str(part) for part in problem["loc"])
    return f"{name}: {problem['msg']}" if name else problem["msg"].removeprefix("Value error, ")
