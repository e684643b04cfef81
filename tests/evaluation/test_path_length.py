"""Path lengths of generators whose value is known, and of what is no generator for them."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import chi2
from torch import nn

from lightning_synthqual import evaluate
from lightning_synthqual.evaluation.plan import make_plan
from lightning_synthqual.metrics.path_length import PUBLISHED

DIMENSION, SIDE = 12, 16
SCALE = 255 / 2  # from the generator's range to grey levels


def squared(one, other):
    """Squared Euclidean distance, in the units of a generator that spans (-1, 1)."""
    return ((one - other) / SCALE).double().square().sum(dim=(1, 2, 3))


class Linear(nn.Module):
    """Images whose squared distance is that of w; w is z, turned and stretched."""

    latent_dim = DIMENSION

    def __init__(self, stretch: float = 3.0) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        turn = torch.linalg.qr(torch.randn(DIMENSION, DIMENSION, generator=draw, dtype=torch.float64)).Q
        spread = torch.linalg.qr(torch.randn(3 * SIDE**2, DIMENSION, generator=draw, dtype=torch.float64)).Q
        self.register_buffer("turn", stretch * turn)
        self.register_buffer("spread", spread)
        self.weight = nn.Parameter(torch.ones((), dtype=torch.float64))

    def mapping(self, z):
        return z @ self.turn.T

    def synthesis(self, w):
        return (w @ self.spread.T).view(-1, 3, SIDE, SIDE)

    def forward(self, z):
        return self.synthesis(self.mapping(z))


def lengths(module, metrics, *, num_pairs=4000, batch_size=500, seed=0, **options):
    options = {"num_pairs": num_pairs, "distance": squared, **options}
    given = {"batch_size": batch_size, "seed": seed, "num_samples": 4, "image_range": (-20, 20)}
    return evaluate(None, module, metrics=metrics, options={"ppl": options}, **given)


def trimmed(quantile):
    """The mean of what lies between the 1st and the 99th percentile of a distribution."""
    return quad(quantile, 0.01, 0.99)[0] / 0.98


def test_the_length_of_a_linear_generator_in_w():
    # |w1 - w0|^2 is twice the square of the stretch times chi squared, wherever between them the step begins.
    expected = trimmed(lambda q: 2 * 3.0**2 * chi2(DIMENSION).ppf(q)) / 20**2
    report = lengths(Linear(), ["ppl_w_full", "ppl_w_end", "ppl2_w_end"], crop=False, epsilon=1e-3)
    for name in ("ppl_w_full", "ppl_w_end", "ppl2_w_end"):
        value, error = report.scalars[name], report.scalars[f"{name}_std"]
        assert 0 < error < 0.02 * value
        assert abs(value - expected) < 4 * error


def test_the_length_of_a_linear_generator_in_z():
    # On the unit sphere the step is the angle between two random directions, whose density is sin^(D-2).
    angles = np.linspace(0, np.pi, 200_001)
    density = np.sin(angles) ** (DIMENSION - 2)
    share = np.cumsum(density) / density.sum()
    quantiles = np.interp((np.arange(20_000) + 0.5) / 20_000, share, angles)
    expected = 3.0**2 * np.mean(quantiles[200:-200] ** 2) / 20**2
    report = lengths(Linear(), ["ppl_z_full", "ppl_z_end"], crop=False, epsilon=1e-3)
    for name in ("ppl_z_full", "ppl_z_end"):
        assert abs(report.scalars[name] - expected) < 4 * report.scalars[f"{name}_std"]
    longer = lengths(Linear(), ["ppl_z_full"], crop=False, epsilon=1e-3, z_length="gaussian")
    assert longer.scalars["ppl_z_full"] == pytest.approx(DIMENSION * report.scalars["ppl_z_full"], rel=1e-3)


def test_a_curved_generator_tells_full_from_end():
    class Curved(Linear):
        """Moves faster the farther w is from the middle, as between two latents it is not."""

        def synthesis(self, w):
            return super().synthesis(w * w.square().sum(dim=1, keepdim=True))

    scalars = lengths(Curved(0.5), ["ppl_w_full", "ppl_w_end"], crop=False).scalars
    assert scalars["ppl_w_end"] > 1.5 * scalars["ppl_w_full"]


def test_crop_keeps_the_middle():
    class Framed(Linear):
        """Nothing but the frame outside StyleGAN's window moves."""

        def synthesis(self, w):
            images = super().synthesis(w).clone()
            images[:, :, 6:14, 4:12] = 0
            return images

    scalars = lengths(Framed(), ["ppl_w_end", "ppl2_w_end"], num_pairs=50).scalars
    assert scalars["ppl_w_end"] == 0
    assert scalars["ppl2_w_end"] > 0
    assert lengths(Framed(), ["ppl_w_end"], num_pairs=50, crop=False).scalars["ppl_w_end"] == scalars["ppl2_w_end"]


def test_the_free_metric_takes_space_sampling_and_crop_as_options():
    free = lengths(Linear(), ["ppl"], num_pairs=60, space="z", sampling="full", crop=True)
    named = lengths(Linear(), ["ppl_z_full"], num_pairs=60)
    assert free.scalars["ppl"] == named.scalars["ppl_z_full"]
    assert lengths(Linear(), ["ppl"], num_pairs=60).scalars["ppl"] == pytest.approx(
        lengths(Linear(), ["ppl2_w_end"], num_pairs=60).scalars["ppl2_w_end"]
    )


def test_the_protocol_says_how():
    report = lengths(Linear(), ["ppl_z_end", "ppl2_w_end"], num_pairs=9, batch_size=7)
    assert report.protocol["metrics"]["ppl_z_end"] == {
        "family": "ppl",
        "direction": "min",
        "space": "z",
        "sampling": "end",
        "crop": True,
        "distance": "squared",
        "num_pairs": 9,
        "epsilon": 1e-4,
        "noise": "*noise_const",
        "z_length": "unit",
    }
    assert report.protocol["metrics"]["ppl2_w_end"]["mapping"] == "mapping"
    assert report.protocol["reference"] is None
    assert "paths" in report.timings
    assert report.pictures["samples"].ndim == 3


@pytest.mark.parametrize("batch_size", [1, 2, 10, 128])
def test_the_length_does_not_depend_on_the_batch(batch_size):
    expected = lengths(Linear(), ["ppl_z_full", "ppl_w_full"], num_pairs=31, batch_size=62).scalars
    found = lengths(Linear(), ["ppl_z_full", "ppl_w_full"], num_pairs=31, batch_size=batch_size).scalars
    assert found == pytest.approx(expected, rel=1e-6)
    assert lengths(Linear(), ["ppl_z_full"], num_pairs=31, seed=1).scalars["ppl_z_full"] != found["ppl_z_full"]


def test_latents_of_zeros(monkeypatch):
    module, randn = Linear(), torch.randn
    monkeypatch.setattr(torch, "randn", lambda *size, **named: torch.zeros_like(randn(*size, **named)))
    with pytest.raises(ValueError, match="latent of zeros"):
        lengths(module, ["ppl_z_end"], num_pairs=4)


def test_a_generator_of_gaussian_noise_is_warned_of_unit_latents(caplog):
    lengths(Linear(), ["ppl_z_full"], num_pairs=4)
    assert "`options={'ppl': {'z_length': 'gaussian'}}`" in caplog.text
    caplog.clear()
    lengths(Linear(), ["ppl_z_full"], num_pairs=4, z_length="gaussian")
    assert caplog.text == ""


def test_every_published_name_is_known():
    plan = make_plan([*PUBLISHED, "ppl"])
    assert plan.names == ("ppl_z_full", "ppl_z_end", "ppl_w_full", "ppl_w_end", "ppl2_w_end", "ppl")
    assert all(metric.needs_generator for metric in plan.metrics)
    assert not plan.reads_real
