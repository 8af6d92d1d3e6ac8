"""A run's folder: one writer at a time, checkpoints whose bytes are checked, and a run that is known
again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clickbait.config import TrainConfig
from clickbait.data.dataset import Dataset
from clickbait.errors import DataError, LeaseLost
from clickbait.training.runs import FREE, Run, State, claim, description

FILES = ("config.json", "model.safetensors", "optimizer.safetensors")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(str(tmp_path / "run"))


def state(step: int) -> State:
    return State(step=step, epoch=1, position=0, loss_sum=0.0, history=[{"epoch": 1.0, "step": float(step)}])


def save(run: Run, tmp_path: Path, step: int) -> str:
    """A checkpoint of three small files."""
    folder = tmp_path / f"files-{step}"
    folder.mkdir(exist_ok=True)
    for name in FILES:
        (folder / name).write_bytes(f"{name} at {step}".encode())
    return run.save(folder, state(step))


def path(run: Run, name: str, file: str) -> Path:
    return Path(run.checkpoint_uri(name)) / file


def test_a_checkpoint_is_read_as_it_was_written(run: Run, tmp_path: Path) -> None:
    name = save(run, tmp_path, 5)
    assert run.state(name) == state(5)
    with run.fetch(name) as folder:
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
            name: f"{name} at 5".encode() for name in FILES
        }


@pytest.mark.parametrize("file", [*FILES, "state.json"])
def test_one_changed_byte_is_refused(run: Run, tmp_path: Path, file: str) -> None:
    name = save(run, tmp_path, 5)
    changed = path(run, name, file)
    data = bytearray(changed.read_bytes())
    for at in range(0, len(data), 3):
        original = data[at]
        data[at] ^= 1
        changed.write_bytes(bytes(data))
        with (
            pytest.raises(DataError, match=rf"step-00000005: {file} has changed since it was written"),
            run.fetch(name),
        ):
            pytest.fail("read it")
        data[at] = original


def test_a_missing_file_is_refused(run: Run, tmp_path: Path) -> None:
    name = save(run, tmp_path, 5)
    path(run, name, "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"model\.safetensors is missing"), run.fetch(name):
        pytest.fail("read it")


def test_a_checkpoint_of_an_older_version_is_read(run: Run, tmp_path: Path) -> None:
    """It has no SHA-256s: state.json was the state alone."""
    name = save(run, tmp_path, 5)
    path(run, name, "state.json").write_text(state(5).model_dump_json())
    assert run.state(name) == state(5)
    with run.fetch(name) as folder:
        assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)


def test_pruned_checkpoints_leave_no_folders(run: Run, tmp_path: Path) -> None:
    names = [save(run, tmp_path, step) for step in (1, 2, 3, 4)]
    torn = path(run, "step-00000009", "model.safetensors")
    torn.parent.mkdir()
    torn.write_bytes(b"half")
    run.write_json("best.json", {"checkpoint": names[0]})
    run.prune(2)
    assert sorted(entry.name for entry in (Path(run.uri) / "checkpoints").iterdir()) == [
        names[0],
        names[2],
        names[3],
    ]


def test_a_checkpoint_written_again_is_not_whole_before_its_end(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(run, tmp_path, 5)

    def die(path: Path, key: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run.storage, "upload", die)
    with pytest.raises(KeyboardInterrupt):
        save(run, tmp_path, 5)
    assert run.complete() == []


def test_two_writers_of_a_run_do_not_interleave(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A is in the middle of writing a checkpoint when B takes the run over and prunes, as after a machine
    that hung: A stops.
    """
    other = Run(run.uri)
    uploads: list[str] = []
    upload = run.storage.upload
    with run.hold("a command"):
        save(run, tmp_path, 5)

        def slow(path: Path, key: str) -> None:
            upload(path, key)
            uploads.append(key)
            if len(uploads) == 2:
                with other.hold("a command"):
                    other.prune(1)

        monkeypatch.setattr(run.storage, "upload", slow)
        with pytest.raises(LeaseLost):
            save(run, tmp_path, 10)
        for write in (
            lambda: run.write_json("best.json", {}),
            lambda: run.prune(1),
            lambda: run.discard(["step-00000005"]),
        ):
            with pytest.raises(LeaseLost):
                write()
    assert other.complete() == ["step-00000005"]
    with other.fetch("step-00000005") as folder:
        assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)


DATASET = Dataset("nowhere", {"fingerprint": "f00d"})


def test_a_run_of_an_older_version_is_the_same_run(run: Run) -> None:
    """Its run.json lacks a setting that came later, and has one that no longer says what a run is."""
    config = TrainConfig(lr=3e-4)
    document = description(config, DATASET)
    del document["config"]["label_smoothing"]
    document["config"]["threads"] = 7
    run.write_json("run.json", document)
    claim(run, config, DATASET)
    with pytest.raises(
        DataError, match=r"another label_smoothing \(0\.0 there, 0\.1 here\): choose another --name"
    ):
        claim(run, config.model_copy(update={"label_smoothing": 0.1}), DATASET)


def test_another_run_is_told_by_its_keys_and_both_values(run: Run) -> None:
    claim(run, TrainConfig(lr=3e-4, epochs=2), DATASET)
    with pytest.raises(DataError) as told:
        claim(run, TrainConfig(lr=1e-3, epochs=5), Dataset("nowhere", {"fingerprint": "beef"}))
    assert (
        'another epochs (2 there, 5 here), lr (0.0003 there, 0.001 here), dataset ("f00d" there, "beef" here)'
        in str(told.value)
    )
    assert "\n" not in str(told.value)


def test_where_and_on_what_a_run_is_trained_does_not_make_it_another(run: Run) -> None:
    changed: dict[str, Any] = {
        "threads": 3,
        "cpus_per_worker": 2.0,
        "num_workers": 0,
        "wandb_project": "other",
        "keep_checkpoints": 5,
    }
    assert changed.keys() <= FREE
    claim(run, TrainConfig(), DATASET)
    before = json.loads(run.storage.read("run.json"))
    claim(run, TrainConfig(**changed), DATASET)
    assert json.loads(run.storage.read("run.json")) == before


def test_only_one_run_is_claimed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process writes run.json between this one's look and its write."""
    read = Run.read_json
    looks: list[str] = []

    def late(self: Run, key: str) -> dict[str, Any] | None:
        document = read(self, key)
        if not looks:
            looks.append(key)
            claim(Run(run.uri), TrainConfig(epochs=7), DATASET)
        return document

    monkeypatch.setattr(Run, "read_json", late)
    with pytest.raises(DataError, match=r"another epochs \(7 there, 2 here\)"):
        claim(run, TrainConfig(epochs=2), DATASET)
