import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision

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
