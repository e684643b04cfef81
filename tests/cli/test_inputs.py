"""``synthqual evaluate --inputs``: an autoencoder's checkpoint, and finished images, against the images they are of."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_synthqual import Report, evaluate
from lightning_synthqual.cli import main


class Shift(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(8.0))

    def forward(self, x: Tensor) -> Tensor:
        return (x.float() + self.shift) / 127.5 - 1


def test_a_checkpoint_is_sampled_with_the_images_of_a_folder(
    words: list[str], folders: dict[str, Path], replaced: Callable[..., list[str]], written: Any, tmp_path: Path
) -> None:
    torch.save({"state_dict": Shift().state_dict()}, tmp_path / "shift.ckpt")
    asked = [*words, "--inputs", str(folders["held_out"]), "--metrics", "psnr,fd_mine"]
    checkpoint = [*replaced(asked, fake=tmp_path / "shift.ckpt"), "--module", f"{__name__}.Shift"]
    assert main([*checkpoint, "--num-samples", "30", "--repeat-inputs"]) == 0
    report: Report = written()
    assert report.protocol["sampling"]["inputs"]["given"] == "folder"
    assert report.protocol["sampling"]["inputs"]["repeated"]
    assert report.scalars["psnr"] == pytest.approx(30.1, abs=0.2)


def test_finished_images_are_compared_with_those_they_are_of(
    words: list[str], folders: dict[str, Path], written: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--inputs", str(folders["held_out"]), "--metrics", "psnr"]) == 2
    assert "`--fake` has 30 images and `--inputs` 20 items" in capsys.readouterr().err
    assert main([*words, "--inputs", str(folders["fake"].with_suffix(".npy")), "--metrics", "ms_ssim"]) == 0
    expected = evaluate(None, folders["fake"], inputs=folders["fake"], metrics=["ms_ssim"], device="cpu")
    assert written().scalars == expected.scalars
