"""How large the serving install is: a fresh virtual environment with the `serve` extra, and one with
`standalone`, by `du`.

make bench-size
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.performance import results

FORBIDDEN = ("torch", "transformers", "pyarrow", "pandas", "sklearn", "scipy")


def megabytes(path: Path) -> float:
    """Disk use as `du` counts it, MB of 10^6 bytes."""
    done = subprocess.run(["du", "-sk", str(path)], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0]) * 1024 / 1e6


def install(folder: Path, extra: str) -> Path:
    """A virtual environment in `folder` with the project and one extra; its site-packages."""
    uv = [str(Path(sys.executable).parent / "uv")]
    quiet = {**os.environ, "VIRTUAL_ENV": ""}
    subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True, env=quiet)
    command = [
        *uv,
        "pip",
        "install",
        "--quiet",
        "--python",
        str(folder / "bin" / "python"),
        "--constraint",
        "constraints.txt",
    ]
    subprocess.run([*command, f".[{extra}]"], check=True, env=quiet, cwd=results.ROOT)
    (site,) = folder.glob("lib/python*/site-packages")
    return site


def main() -> None:
    """Install, measure, save."""
    shows: dict[str, float] = {}
    largest: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-size-") as name:
        for extra, key in (("serve", "serving_install_mb"), ("standalone", "standalone_install_mb")):
            folder = Path(name) / extra
            site = install(folder, extra)
            there = [package for package in FORBIDDEN if (site / package).exists()]
            assert not there, f"the {extra} extra brings {there}"
            shows[key] = round(megabytes(folder), 1)
            sizes = {path.name: megabytes(path) for path in site.iterdir() if path.is_dir()}
            largest[extra] = dict(sorted(sizes.items(), key=lambda item: -item[1])[:10])
            print(
                f"{extra}: {shows[key]:.0f} MB, most of it "
                + ", ".join(f"{k} {v:.0f}" for k, v in list(largest[extra].items())[:6])
            )
    results.save("size", shows, largest=largest)


if __name__ == "__main__":
    main()
