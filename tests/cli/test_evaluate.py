import csv
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lightning_synthqual import Report, evaluate
from lightning_synthqual.cli import evaluate as command
from lightning_synthqual.cli import main

Replaced = Callable[..., list[str]]
Written = Callable[[], Report]


def test_it_writes_the_report_of_the_function(
    words: list[str],
    folders: dict[str, Path],
    network: dict[str, str],
    tmp_path: Path,
    written: Written,
    capsys: pytest.CaptureFixture[str],
) -> None:
    metrics = ("kd_mine", "memorization_mine", "pairs_mine", "feature_space_mine")
    options = ["--option", 'pairs.metrics=["psnr","mine"]', "--option", 'feature_space.methods=["pca"]']
    assert main([*words, "--metrics", ",".join(metrics), *options, "--seed", "3"]) == 0
    out = tmp_path / "out"
    expected = evaluate(
        folders["train"],
        folders["fake"],
        held_out=folders["held_out"],
        metrics=metrics,
        extractors={"mine": network},
        options={"pairs": {"metrics": ["psnr", "mine"]}, "feature_space": {"methods": ["pca"]}},
        cache_dir=str(tmp_path / "cache"),
        seed=3,
        device="cpu",
    )
    assert written().scalars == expected.scalars
    printed = capsys.readouterr().out
    assert "kd_mine" in printed
    assert str(out / "report.html") in printed
    with (out / "pairs_mine.csv").open() as file:
        rows = list(csv.DictReader(file))
    psnr = [float(row["psnr"]) for row in rows if row["kind"] == "train"]
    assert psnr[25:] == [float("inf")] * 5
    assert psnr == [row[3] for row in expected.tables["pairs_mine"].rows if row[1] == "train"]
    html = (out / "report.html").read_text()
    assert html.count("<img") >= len(expected.pictures)


def test_influences_of_an_earlier_evaluation_are_not_left_beside_a_report(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / "report.influences.safetensors"
    path.write_bytes(b"of an earlier evaluation")
    assert main([*words, "--metrics", "recall_mine"]) == 0
    assert not path.exists() or path.read_bytes() != b"of an earlier evaluation"


def test_arrays_give_the_numbers_of_folders(
    words: list[str], folders: dict[str, Path], tmp_path: Path, replaced: Replaced, written: Written
) -> None:
    assert main([*words, "--metrics", "fd_mine,recall_mine"]) == 0
    scalars = written().scalars
    arrays = replaced(words, real=f"{folders['train']}.npy", fake=f"{folders['fake']}.npy")
    assert main([*arrays, "--metrics", "fd_mine,recall_mine", "--batch-size", "7"]) == 0
    assert written().scalars == pytest.approx(scalars, rel=1e-9)


def test_unreadable_images_are_named_or_counted(
    words: list[str],
    folders: dict[str, Path],
    tmp_path: Path,
    replaced: Replaced,
    written: Written,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for path in folders["fake"].iterdir():
        (mixed / path.name).write_bytes(path.read_bytes())
    (mixed / "broken.png").write_bytes(b"\x89PNG")
    broken = [*replaced(words, fake=mixed), "--metrics", "fd_mine"]
    assert main(broken) == 2
    assert "broken.png` could not be read" in capsys.readouterr().err
    assert main([*broken, "--skip-unreadable"]) == 0
    skipped = written()
    assert skipped.protocol["generated"]["num_skipped"] == 1
    assert skipped.protocol["generated"]["first_skipped"] == ["broken.png"]
    assert main([*words, "--metrics", "fd_mine"]) == 0
    assert written().scalars == skipped.scalars


def test_names_that_are_no_utf_8_cost_nothing(
    words: list[str], folders: dict[str, Path], tmp_path: Path, replaced: Replaced, written: Written
) -> None:
    folder = os.fsencode(tmp_path) + b"/fake-\xff"
    os.mkdir(folder)  # noqa: PTH102 - bytes
    for path in folders["fake"].iterdir():
        target = Path(os.fsdecode(folder + b"/\xfe" + os.fsencode(path.name)))
        target.write_bytes(path.read_bytes())
    strange = replaced(words, fake=os.fsdecode(folder))
    assert main([*strange, "--metrics", "fd_mine,memorization_mine"]) == 0
    scalars = written().scalars
    assert "fake-\\udcff against" in (tmp_path / "out" / "report.html").read_text()
    assert main([*words, "--metrics", "fd_mine,memorization_mine"]) == 0
    assert written().scalars == scalars


def damaged(kind: str, path: Path) -> Path:
    """A file of images that is not what its name says."""
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    np.savez(path.with_suffix(".npz"), images=images)
    np.save(path.with_suffix(".npy"), images)
    path = path.with_suffix(kind.partition(" ")[0])
    content = bytearray(path.read_bytes())
    if kind.endswith("cut"):
        content = content[: len(content) // 2]
    elif kind.endswith("flipped"):
        content[len(content) // 2] ^= 255
    elif kind.endswith("header"):
        content[12:60] = b"{" * 48
    elif kind.endswith("empty"):
        content = bytearray()
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("kind", [".npz cut", ".npz flipped", ".npz empty", ".npy cut", ".npy header", ".npy empty"])
def test_damaged_files_of_images_exit_with_2_and_one_line(
    words: list[str], tmp_path: Path, replaced: Replaced, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    assert main([*replaced(words, fake=damaged(kind, tmp_path / "images")), "--metrics", "fd_mine"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("synthqual: ")


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--metrics", "fdi"], "Unknown metric 'fdi'"),
        (["--real", "/nowhere"], "The image folder `/nowhere` does not exist"),
        (["--fake", "/nowhere.npz"], "The file of images `/nowhere.npz` does not exist"),
        (["--extractor", "mine"], "`--extractor` takes NAME=VALUE, but got 'mine'"),
        (["--extractor", "mine={'network'}"], "`--extractor` takes JSON"),
        (["--extractor", "mine=nowhere.Net"], "`--extractor mine"),
        (["--extractor", "../../up=nowhere.Net"], "The extractor name '../../up' must consist of"),
        (["--option", "precision=5"], "`--option` takes FAMILY.KEY=JSON"),
        (["--option", "precision.k=five"], "`--option` takes JSON"),
        (["--output", "/dev/null/out"], "/dev/null/out"),
        (["--metrics", "fid"], "pass the file as `--extractor inception=path/to/file`"),
        (["--image-range", "1", "-1"], "`--image-range` must be finite and have low < high"),
        (["--image-size", "-4"], "`--image-size` must be a positive integer or two of them (height, width)"),
        (["--fake", "gan.ckpt"], "`--fake gan.ckpt` is a checkpoint. Say by `--module package.Gan` which"),
        (["--sampler", "a.b", "--num-samples", "5"], "`--num-samples`, `--sampler` needs a checkpoint as `--fake`"),
        (["--trust-checkpoint"], "`--trust-checkpoint` needs a checkpoint"),
    ],
)
def test_bad_input_exits_with_2_and_one_line(
    words: list[str], more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--metrics", "fd_mine", *more]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("synthqual: ")
    assert message in line


def test_arguments_that_were_not_given_are_left_to_the_function(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def record(*_: object, **arguments: object) -> Report:
        calls.append(arguments)
        return Report(scalars={}, protocol={})

    monkeypatch.setattr(command, "evaluate", record)
    assert main(words) == 0
    reading = ["--num-workers", "3", "--cache-check", "full"]
    assert main([*words, "--num-real", "7", "--cache-key", "mars", *reading]) == 0
    first, second = calls
    assert not {"num_real", "num_samples", "precision", "sampler", "labels"} & set(first)
    assert (second["num_real"], second["cache_key"]) == (7, "mars")
    assert (second["num_workers"], second["cache_check"]) == (3, "full")
    assert first["metrics"] == ("fid", "kid", "precision", "recall")
