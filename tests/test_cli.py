import csv
import json
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_synthqual import QualityMonitor, Report, evaluate
from lightning_synthqual.cli import main
from lightning_synthqual.extractors import weights
from lightning_synthqual.extractors.registry import CATALOGUE, PAIRS

ALEXNET = "alexnet-owt-7be5be79.pth"


@pytest.fixture(autouse=True)
def nothing_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.delenv(weights.DIRECTORY_VARIABLE, raising=False)


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("published") / ALEXNET
    torch.save(torchvision.models.alexnet().state_dict(), path)
    return path


def test_the_list_says_what_is_here_and_what_is_missing(alexnet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "list", "--weights-dir", str(alexnet.parent)]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["NAME", "WEIGHTS", "WHERE"]
    by_name = {row.split()[0]: row for row in rows}
    assert set(by_name) == {*CATALOGUE, *PAIRS, "dreamsim"}
    assert by_name["lpips_alex"].split() == ["lpips_alex", ALEXNET, str(alexnet)]
    assert "missing: https://download.pytorch.org/models/vgg16-397923af.pth" in by_name["vgg16"]
    assert "none needed" in by_name["wavelet"]
    assert [row.split()[1] for row in rows if row.startswith("dreamsim ")] == [
        "dreamsim/",
        "dreamsim/facebookresearch_dino_main",
        "dreamsim/checkpoints/dino_vitbase16_pretrain.pth",
    ]


def test_the_list_may_be_of_some_names_and_of_open_clips(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "list", "inception", "ViT-B-32:laion2b_s34b_b79k"]) == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    assert [row.split()[0] for row in rows] == ["inception", "ViT-B-32:laion2b_s34b_b79k"]
    assert "CLIP-ViT-B-32-laion2B-s34B-b79K/open_clip_model.safetensors" in rows[1]


def test_fetching_downloads_verifies_and_tries_the_weights(
    alexnet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def download(url: str, path: str, **_: object) -> None:
        assert url == f"https://download.pytorch.org/models/{ALEXNET}"
        Path(path).write_bytes(alexnet.read_bytes())

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    monkeypatch.setenv(weights.DIRECTORY_VARIABLE, str(tmp_path / "mine"))
    # Random weights cannot have the published hash, which a download into the libraries' own folder is held against.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "_verified", lambda path, _: weights.WeightsFile(path, "0" * 64, "published"))
        assert main(["weights", "fetch", "lpips_alex", "wavelet"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"lpips_alex: {tmp_path / 'mine' / ALEXNET} (SHA-256 ")
    assert second.startswith("wavelet: no weights needed")
    assert main(["weights", "list", "lpips_alex"]) == 0
    assert str(tmp_path / "mine" / ALEXNET) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["weights", "list", "inceptoin"], "Unknown extractor 'inceptoin'; did you mean 'inception'"),
        (["weights", "fetch", "wavelet", "nothing"], "Unknown extractor 'nothing'"),
        (["weights", "fetch", "lpips_alex"], "could not be downloaded from https://download.pytorch.org"),
    ],
)
def test_bad_input_exits_with_2_and_one_line(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("Name or service\nnot known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("synthqual: ")
    assert message in line


def test_the_command_is_installed_and_says_its_version() -> None:
    command = Path(sys.executable).with_name("synthqual")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("lightning-synthqual 0.")


@pytest.mark.parametrize("words", [[], ["weights"], ["weights", "fetch"], ["wieghts"]])
def test_incomplete_commands_exit_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "usage: synthqual" in capsys.readouterr().err


class Mean(nn.Module):
    """A user's network: box averages."""

    def forward(self, images):
        return nn.functional.avg_pool2d(images.float() / 255, 4).flatten(1)


class Painter(pl.LightningModule):
    """A generator that learns a little."""

    latent_dim = 4

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 3 * 16 * 16))

    def forward(self, z):
        return torch.tanh(self.net(z)).view(-1, 3, 16, 16)

    def training_step(self, batch, batch_idx):
        return (self(torch.randn(len(batch[0]), 4)) - batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)


NETWORK = {"network": f"{__name__}.Mean"}
EXTRACTOR = f"mine={json.dumps(NETWORK)}"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of smooth pictures of 16x16, the generated ones partly copies."""
    draw = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 256, (90, 3, 4, 4), generator=draw).float()
    images = nn.functional.interpolate(coarse, size=16, mode="bicubic").clamp(0, 255).to(torch.uint8)
    sets = {"train": images[:40], "held_out": images[40:60], "fake": torch.cat([images[60:85], images[:5]])}
    root = tmp_path_factory.mktemp("pictures")
    for name, pictures in sets.items():
        (root / name).mkdir()
        for place, picture in enumerate(pictures):
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(root / name / f"{place:02}.png")
        np.save(root / f"{name}.npy", pictures.numpy())
    return {name: root / name for name in sets}


@pytest.fixture
def words(folders: dict[str, Path], tmp_path: Path) -> list[str]:
    sets = ["--real", str(folders["train"]), "--held-out", str(folders["held_out"]), "--fake", str(folders["fake"])]
    places = ["--output", str(tmp_path / "out"), "--cache-dir", str(tmp_path / "cache"), "--device", "cpu"]
    return ["evaluate", *sets, *places, "--extractor", EXTRACTOR]


def replaced(words: list[str], **values: str) -> list[str]:
    words = list(words)
    for name, value in values.items():
        words[words.index(f"--{name}") + 1] = value
    return words


def test_evaluate_writes_the_report_of_the_function(
    words: list[str], folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = ("kd_mine", "memorization_mine", "pairs_mine", "feature_space_mine")
    options = ["--option", 'pairs.metrics=["psnr","mine"]', "--option", 'feature_space.methods=["pca"]']
    assert main([*words, "--metrics", ",".join(metrics), *options, "--seed", "3"]) == 0
    out = tmp_path / "out"
    report = Report.from_json((out / "report.json").read_text())
    expected = evaluate(
        folders["train"],
        folders["fake"],
        held_out=folders["held_out"],
        metrics=metrics,
        extractors={"mine": NETWORK},
        options={"pairs": {"metrics": ["psnr", "mine"]}, "feature_space": {"methods": ["pca"]}},
        cache_dir=str(tmp_path / "cache"),
        seed=3,
        device="cpu",
    )
    assert report.scalars == expected.scalars
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


def test_arrays_give_the_numbers_of_folders(words: list[str], folders: dict[str, Path], tmp_path: Path) -> None:
    assert main([*words, "--metrics", "fd_mine,recall_mine"]) == 0
    one = Report.from_json((tmp_path / "out" / "report.json").read_text())
    arrays = replaced(words, real=f"{folders['train']}.npy", fake=f"{folders['fake']}.npy", output=str(tmp_path / "b"))
    assert main([*arrays, "--metrics", "fd_mine,recall_mine", "--batch-size", "7"]) == 0
    other = Report.from_json((tmp_path / "b" / "report.json").read_text())
    assert other.scalars == pytest.approx(one.scalars, rel=1e-9)


def test_unreadable_pictures_are_named_or_counted(
    words: list[str], folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for path in folders["fake"].iterdir():
        (mixed / path.name).write_bytes(path.read_bytes())
    (mixed / "broken.png").write_bytes(b"\x89PNG")
    broken = [*replaced(words, fake=str(mixed)), "--metrics", "fd_mine"]
    assert main(broken) == 2
    assert "broken.png` could not be read" in capsys.readouterr().err
    assert main([*broken, "--skip-unreadable"]) == 0
    skipped = Report.from_json((tmp_path / "out" / "report.json").read_text())
    assert skipped.protocol["generated"]["num_skipped"] == 1
    assert skipped.protocol["generated"]["first_skipped"] == ["broken.png"]
    assert main([*words, "--metrics", "fd_mine"]) == 0
    assert Report.from_json((tmp_path / "out" / "report.json").read_text()).scalars == skipped.scalars


@pytest.mark.parametrize("averaging", [False, True])
def test_a_checkpoint_scores_as_it_did_in_training(
    words: list[str], folders: dict[str, Path], tmp_path: Path, averaging: bool
) -> None:
    metrics = ("fd_mine", "precision_mine", "closer_to_train_mine")
    images = torch.from_numpy(np.load(f"{folders['train']}.npy")).float() / 127.5 - 1
    monitor = QualityMonitor(
        real=folders["train"],
        held_out=folders["held_out"],
        metrics=metrics,
        extractors={"mine": NETWORK},
        num_samples=33,
        batch_size=8,
        cache_dir=str(tmp_path / "cache"),
    )
    callbacks: list[pl.Callback] = [monitor]
    if averaging:
        callbacks.append(pl.callbacks.WeightAveraging(avg_fn=lambda average, new, _: average + 0.1 * (new - average)))
    pl.seed_everything(0, verbose=False)
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(Painter(width=6), DataLoader(TensorDataset(images), batch_size=10))
    trainer.save_checkpoint(tmp_path / "painter.ckpt")
    checkpoint = [*replaced(words, fake=str(tmp_path / "painter.ckpt")), "--module", f"{__name__}.Painter"]
    assert main([*checkpoint, "--metrics", ",".join(metrics), "--num-samples", "33"]) == 0
    report = Report.from_json((tmp_path / "out" / "report.json").read_text())
    (line,) = (tmp_path / "reports.jsonl").read_text().splitlines()[-1:]
    assert report.scalars == Report.from_json(line).scalars == monitor.reports[-1].scalars


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--metrics", "fdi"], "Unknown metric 'fdi'"),
        (["--metrics", "fd_mine", "--real", "/nowhere"], "The image folder `/nowhere` does not exist"),
        (["--metrics", "fd_mine", "--fake", "/nowhere.npz"], "The file of images `/nowhere.npz` does not exist"),
        (["--metrics", "fd_mine", "--extractor", "mine"], "`--extractor` takes NAME=VALUE, but got 'mine'"),
        (["--metrics", "fd_mine", "--extractor", "mine={'network'}"], "`--extractor` takes JSON"),
        (["--metrics", "fd_mine", "--option", "precision=5"], "`--option` takes FAMILY.KEY=JSON"),
        (["--metrics", "fd_mine", "--option", "precision.k=five"], "`--option` takes JSON"),
        (
            ["--metrics", "fd_mine", "--module", "nowhere.Model"],
            "`--module='nowhere.Model'` names nothing that can be imported",
        ),
        (["--metrics", "fd_mine", "--module", "torch.nn.Linear"], "is no LightningModule"),
        (["--metrics", "fd_mine", "--module", f"{__name__}.Painter"], "fake` could not be read"),
        (["--metrics", "fd_mine", "--output", "/dev/null/out"], "/dev/null/out"),
        (["--metrics", "fid"], "weights"),
    ],
)
def test_bad_input_of_evaluate_exits_with_2_and_one_line(
    words: list[str],
    more: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("Name or service\nnot known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    assert main([*words, *more]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("synthqual: ")
    assert message in line


def test_a_checkpoint_that_holds_more_than_plain_values(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"state_dict": {}, "hyper_parameters": {"sampler": Mean()}}, tmp_path / "odd.ckpt")
    checkpoint = replaced(words, fake=str(tmp_path / "odd.ckpt"))
    assert main([*checkpoint, "--metrics", "fd_mine", "--module", f"{__name__}.Painter"]) == 2
    assert "holds more than tensors and plain values" in capsys.readouterr().err


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run of three evaluations."""
    folder = tmp_path / "run" / "version_0"
    folder.mkdir(parents=True)
    reports = [
        Report(scalars={"fid": 30.0 - step, "fid_std": 1.0}, protocol={"num_samples": 9}, timings={}, step=step)
        for step in (0, 10, 20)
    ]
    (folder / "reports.jsonl").write_text("".join(report.to_json() + "\n" for report in reports))
    return tmp_path / "run"


def test_compare_prints_reports_side_by_side(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = run_dir.parent / "other.json"
    other.write_text(Report(scalars={"fid": 5.0}, protocol={"num_samples": 8}, timings={}).to_json())
    lines = f"{run_dir}/version_0/reports.jsonl"
    assert main(["compare", f"{lines}:10", lines, str(other)]) == 0
    head, one, two, note = capsys.readouterr().out.splitlines()
    assert head.split() == ["metric", "run/version_0/reports.jsonl:10", "run/version_0/reports.jsonl", "other.json"]
    assert one.split() == ["fid", "20", "±", "1", "10", "±", "1"]
    assert two.split() == ["fid", "5"]
    assert note == "fid: rows of unlike protocol (num_samples: 9 / 8)"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{", "is no report"),
        ("a.json", '{"fid": 3}', "is no report"),
        ("a.jsonl", "", "holds no report"),
        ("a.jsonl:3", "", "holds no report of step 3"),
        ("missing.json", None, "No such file"),
    ],
)
def test_what_cannot_be_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name.split(":")[0]).write_text(content)
    assert main(["compare", str(tmp_path / name)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_plot_draws_the_curves_of_a_run(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", str(run_dir)]) == 0
    assert f"3 evaluations drawn to {run_dir / 'curves.png'}" in capsys.readouterr().out
    with Image.open(run_dir / "curves.png") as picture:
        assert picture.size == (420, 300)
    assert main(["plot", str(run_dir), "--metrics", "kid"]) == 2
    assert "no kid. They have: fid" in capsys.readouterr().err
    (run_dir / "version_0" / "seldom").mkdir()
    (run_dir / "version_0" / "seldom" / "reports.jsonl").write_text("")
    assert main(["plot", str(run_dir), "--metrics", "fid"]) == 0  # that of another monitor is another matter
    (run_dir / "another" / "version_0").mkdir(parents=True)
    (run_dir / "another" / "version_0" / "reports.jsonl").write_text("")
    assert main(["plot", str(run_dir)]) == 2
    assert "several" in capsys.readouterr().err
    assert main(["plot", str(run_dir.parent / "nowhere")]) == 2
    assert "holds no reports.jsonl" in capsys.readouterr().err
