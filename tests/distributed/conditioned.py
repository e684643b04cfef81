"""An evaluation of a generator that is conditioned on items; each process writes ``<output>/rank<r>.json``."""

import json
from pathlib import Path

import open_clip
import torch
from process import main
from safetensors.torch import save_file
from torch import nn

from lightning_synthqual import Images, evaluate

NAME = "TinyOfRanks"
CONFIGURATION = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}


class Blur(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(x, 3, 1, 1)


class Photos:
    """Images with a text, shifted at random."""

    def __init__(self, count: int) -> None:
        self.images = torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, object]:
        shift = int(torch.randint(5, ()))
        return {"image": self.images[index].roll(shift, 1), "text": f"photo {index % 7} of a crater"}


def clip(folder: Path) -> dict[str, object]:
    """The same tiny random CLIP on every process, each from a file of its own."""
    folder.mkdir()
    (folder / f"{NAME}.json").write_text(json.dumps(CONFIGURATION))
    open_clip.add_model_config(folder)
    torch.manual_seed(0)
    state = open_clip.create_model(NAME, pretrained_text=False).state_dict()
    save_file({key: value.contiguous() for key, value in state.items()}, folder / "model.safetensors")
    return {NAME: {"weights": str(folder / "model.safetensors")}}


def find(rank: int, world_size: int, output: Path) -> dict:
    extractors = clip(output / f"clip{rank}")
    photos = Photos(53)
    report = evaluate(
        Images(photos, key="image"),
        Blur(),
        inputs=photos,
        metrics=("fd_pixels", "psnr", "ms_ssim", f"clip_score_{NAME}"),
        extractors=extractors,
        batch_size=8,
        cache_dir=output,
    )
    found = {"scalars": report.scalars, "inputs": report.protocol["sampling"]["inputs"]}
    found["pictures"] = {name: int(pixels.sum()) for name, pixels in report.pictures.items() if "pairs" in name}
    try:
        evaluate(None, Blur(), inputs=Photos(20 + rank), metrics=["psnr"], num_samples=20)
    except ValueError as error:
        found["error"] = str(error)
    real, fake = ([(image, place % 2) for place, image in enumerate(Photos(count).images)] for count in (43, 37))
    metrics = ("fd_pixels", "recall_pixels")
    by_class = evaluate(real, fake, metrics=metrics, per_class=True, batch_size=8, cache_dir=output)
    found["by class"] = by_class.scalars
    return found


if __name__ == "__main__":
    main(find)
