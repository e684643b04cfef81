from pathlib import Path

import pytest
import torch

from lightning_synthqual.cli import main
from lightning_synthqual.extractors import weights
from lightning_synthqual.extractors.registry import CATALOGUE, PAIRS


def test_the_list_says_what_is_here_and_what_is_missing(alexnet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "list", "--weights-dir", str(alexnet.parent)]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["NAME", "WEIGHTS", "WHERE"]
    by_name = {row.split()[0]: row for row in rows}
    assert set(by_name) == {*CATALOGUE, *PAIRS, "dreamsim"}
    assert by_name["lpips_alex"].split() == ["lpips_alex", alexnet.name, str(alexnet)]
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
        assert url == f"https://download.pytorch.org/models/{alexnet.name}"
        Path(path).write_bytes(alexnet.read_bytes())

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    monkeypatch.setenv(weights.DIRECTORY_VARIABLE, str(tmp_path / "mine"))
    # Random weights cannot have the published hash, which a download is checked against.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "_verified", lambda path, _: weights.WeightsFile(path, "0" * 64, "published"))
        assert main(["weights", "fetch", "lpips_alex", "wavelet"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"lpips_alex: {tmp_path / 'mine' / alexnet.name} (SHA-256 ")
    assert second.startswith("wavelet: no weights needed")
    assert main(["weights", "list", "lpips_alex"]) == 0
    assert str(tmp_path / "mine" / alexnet.name) in capsys.readouterr().out


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["list", "inceptoin"], "Unknown extractor 'inceptoin'; did you mean 'inception'"),
        (["fetch", "wavelet", "nothing"], "Unknown extractor 'nothing'"),
        (["fetch", "lpips_alex"], "could not be downloaded from https://download.pytorch.org"),
        (["fetch", "lpips_alex"], "into the folder that `--weights-dir` or $LIGHTNING_SYNTHQUAL_WEIGHTS names"),
    ],
)
def test_bad_input_exits_with_2_and_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["weights", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("synthqual: ")
    assert message in line
