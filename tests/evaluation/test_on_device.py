"""A whole evaluation on an accelerator."""

import pytest
import torch
from accelerator import accelerator
from torch import Tensor, nn

from lightning_synthqual.distributed import Ranks
from lightning_synthqual.evaluation.evaluator import Evaluator
from lightning_synthqual.evaluation.plan import make_plan
from lightning_synthqual.evaluation.workspace import Workspace
from lightning_synthqual.images.reference import ImageSet
from lightning_synthqual.images.sampling import Sampler
from lightning_synthqual.metrics import manifold
from lightning_synthqual.metrics.neighbors import near

METRICS = (
    "fd_mine",
    "kd_mine",
    "precision_mine",
    "recall_mine",
    "density_mine",
    "coverage_mine",
    "closer_to_train_mine",
    "authenticity_mine",
    "vendi_mine",
    "pairs_mine",
)


# Neither weights that are not here nor a projection that takes long.
OPTIONS = {"pairs": {"metrics": ("psnr", "ms_ssim")}, "feature_space": {"methods": ("pca",)}}


class Noise(nn.Module):
    """A generator of images 16 x 16 from latents."""

    latent_dim = 6

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3 * 16 * 16)

    def forward(self, z: Tensor) -> Tensor:
        return self.layer(z).tanh().view(-1, 3, 16, 16)


@pytest.mark.slow
def test_values_are_those_of_the_cpu(clouds, flat, tmp_path):
    train, held_out, _ = clouds
    torch.manual_seed(0)
    generator = Noise()

    def evaluate(device: str) -> dict[str, float]:
        plan = make_plan(METRICS, extractors={"mine": flat}, cache_dir=str(tmp_path / device), options=OPTIONS)
        sets = ImageSet(train, "real"), ImageSet(held_out, "held_out")
        sampler = Sampler(generator.to(device), device=device)
        evaluator = Evaluator(Workspace(plan, Ranks(), device), *sets, sampler=sampler, num_samples=40)
        return evaluator.evaluate(sampler, 40).scalars

    expected = evaluate("cpu")
    with accelerator():
        found = evaluate("cuda")
    assert len(expected) > 40
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12, nan_ok=True)


def test_precision_recall_density_and_coverage_take_one_pass(clouds, flat, tmp_path, monkeypatch):
    passes = []
    monkeypatch.setattr(manifold, "near", lambda *rows, **options: passes.append(1) or near(*rows, **options))
    plan = make_plan(METRICS[2:6], extractors={"mine": flat}, cache_dir=str(tmp_path))
    evaluator = Evaluator(Workspace(plan, Ranks(), "cpu"), ImageSet(clouds[0], "real"))
    for number in (1, 2):
        assert {*METRICS[2:6]} < set(evaluator.evaluate_images(ImageSet(clouds[2], "fake")).scalars)
        assert len(passes) == number
