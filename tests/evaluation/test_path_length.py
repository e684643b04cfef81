"""Path lengths of generators whose value is known, and of what is no generator for them."""

import lpips
import numpy as np
import pytest
import torch
import torchvision
from scipy.integrate import quad
from scipy.stats import chi2
from torch import nn
from torch.utils.data import TensorDataset

from lightning_synthqual import evaluate
from lightning_synthqual.evaluation.evaluator import Evaluator
from lightning_synthqual.evaluation.settings import Settings
from lightning_synthqual.images.sampling import Sampler
from lightning_synthqual.metrics.path_length import PUBLISHED, slerp

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
        "space": "z",
        "sampling": "end",
        "crop": True,
        "distance": "squared",
        "num_pairs": 9,
        "epsilon": 1e-4,
        "noise": "*noise_const",
        "pairs_of_a_pass": 3,
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


class Style(nn.Module):
    """A small style-based generator: mapping, synthesis, noise buffers, labels."""

    latent_dim = 8
    num_classes = 3

    def __init__(self, channels: int = 1, side: int = 32) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.channels, self.side = channels, side
        self.embed = nn.Embedding(3, 8)
        self.generator = nn.ModuleDict({"map": nn.Linear(16, 8), "paint": nn.Linear(8, channels * 8 * 8)})
        self.register_buffer("noise_const", torch.randn(side, side))
        self.seen: list[torch.Tensor] = []

    def mapping(self, z, labels=None):
        labels = torch.zeros(len(z), dtype=torch.int64) if labels is None else labels
        self.seen.append(labels)
        z = z / z.norm(dim=1, keepdim=True)
        return torch.tanh(self.generator["map"](torch.cat([z, self.embed(labels)], dim=1)))

    def synthesis(self, w):
        images = self.generator["paint"](w).view(-1, self.channels, 8, 8)
        scale = self.side // 8
        return torch.tanh(nn.functional.interpolate(images, scale_factor=scale) + 0.3 * self.noise_const)

    def forward(self, z, labels=None):
        return self.synthesis(self.mapping(z, labels))


def walk(module, metrics=("ppl_z_full", "ppl_w_full"), labels=None, real=None, **options):
    options = {"num_pairs": 12, "distance": squared, **options}
    return evaluate(real, module, metrics=metrics, options={"ppl": options}, batch_size=8, num_samples=4, labels=labels)


def test_noise_is_redrawn_shared_within_a_pair_and_put_back():
    module = Style()
    before = module.noise_const.clone()
    drawn = []
    synthesis = module.synthesis
    module.synthesis = lambda w: (drawn.append(module.noise_const.clone()), synthesis(w))[1]
    first = walk(module, ["ppl_w_end"])
    assert torch.equal(module.noise_const, before)
    measured = drawn[-3:]  # 12 pairs, 4 a pass
    assert not any(torch.equal(one, other) for one, other in zip(measured, [*measured[1:], before], strict=True))
    assert walk(Style(), ["ppl_w_end"]).scalars == first.scalars
    fixed = walk(Style(), ["ppl_w_end"], noise="nothing").scalars
    assert fixed["ppl_w_end"] != first.scalars["ppl_w_end"]


def test_noise_is_put_back_when_the_generator_fails():
    module = Style()
    before = module.noise_const.clone()
    sampler = Sampler(module, owner=module)
    settings = Settings(metrics=["ppl_w_end"], options={"ppl": {"distance": squared, "num_pairs": 12}})
    evaluator = Evaluator(settings)
    evaluator.prepare(None)
    calls = []

    def fails(w):
        calls.append(w)
        raise RuntimeError("on fire")

    module.synthesis = fails
    module.forward = lambda z: torch.zeros(len(z), 1, 32, 32)
    with pytest.raises(RuntimeError, match="on fire"):
        evaluator.evaluate(sampler, 4)
    assert calls
    assert torch.equal(module.noise_const, before)


def test_noise_within_the_forward_pass_is_an_error():
    class Noisy(Style):
        def synthesis(self, w):
            images = super().synthesis(w)
            return images + 0.1 * torch.randn_like(images)

    with pytest.raises(ValueError, match=r"Two images of the same latents differ by up to .* buffers"):
        walk(Noisy())


@pytest.mark.parametrize("labels", ["uniform", "data"])
def test_labels_are_shared_within_a_pair(labels):
    module = Style()
    images = torch.zeros(9, 1, 32, 32)
    real = TensorDataset(images, torch.tensor([0, 2, 2] * 3)) if labels == "data" else None
    walk(module, ["ppl_w_full"], labels=labels, real=real)
    pairs = [seen.chunk(2) for seen in module.seen[-3:]]
    assert all(torch.equal(one, other) for one, other in pairs)
    drawn = set(torch.cat([one for one, _ in pairs]).tolist())
    assert drawn <= ({0, 2} if labels == "data" else {0, 1, 2})
    assert len(drawn) > 1


def test_networks_under_other_names():
    class Other(Style):
        mapping = None
        synthesis = None

    module = Other()
    module.parts = nn.ModuleDict({"to_w": nn.Linear(8, 8), "to_images": nn.Sequential(nn.Linear(8, 192), nn.Tanh())})
    module.parts["to_images"].append(nn.Unflatten(1, (3, 8, 8)))
    module.forward = lambda z: module.parts["to_images"](module.parts["to_w"](z))
    names = {"mapping": "parts.to_w", "synthesis": "parts.to_images"}
    assert walk(module, ["ppl2_w_end"], **names).scalars["ppl2_w_end"] > 0


def test_lpips_is_that_of_the_lpips_package_on_the_same_images(tmp_path):
    torch.manual_seed(0)
    vgg = torchvision.models.vgg16()
    torch.save(vgg.state_dict(), tmp_path / "vgg16-397923af.pth")
    module = Style(channels=3, side=32)
    report = evaluate(
        None,
        module,
        metrics=["ppl_z_full", "ppl2_w_end"],
        options={"ppl": {"num_pairs": 6, "epsilon": 1e-2, "noise": "none"}},
        weights_dir=str(tmp_path),
        batch_size=12,
        num_samples=4,
    )
    peer = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False).eval()
    trunk = {f"features.{name.partition('.')[2]}": name for name in peer.net.state_dict()}
    peer.net.load_state_dict({trunk[key]: value for key, value in vgg.state_dict().items() if key in trunk})
    sampler = Sampler(module, owner=module)
    from lightning_synthqual.evaluation.path_length import _PAIR
    from lightning_synthqual.images.randomness import derived_seed

    z, t = [], []
    for index in range(6):
        draw = torch.Generator().manual_seed(derived_seed(sampler.seed, _PAIR, index))
        z.append(torch.randn(2, 8, generator=draw))
        t.append(torch.rand((), generator=draw, dtype=torch.float64))
    first, second = torch.stack(z, dim=1).double()
    t = torch.stack(t)
    with torch.no_grad():
        ends = [module(slerp(first, second, each).float())[:, :, 12:28, 8:24] for each in (t, t + 1e-2)]
        direct = peer(*ends).flatten().double() / 1e-2**2
        assert report.scalars["ppl_z_full"] == pytest.approx(direct.mean().item(), rel=1e-4)
        w = [module.mapping(each.float()) for each in (first, second)]
        ends = [module.synthesis(torch.lerp(*w, each)) for each in (0.0, 1e-2)]
        direct = peer(*ends).flatten().double() / 1e-2**2
        assert report.scalars["ppl2_w_end"] == pytest.approx(direct.mean().item(), rel=1e-4)
    assert report.protocol["pairs"]["lpips_vgg"]["weights"] == "custom"


def test_metrics_of_images_are_measured_beside_it(tmp_path):
    images = TensorDataset(torch.randint(0, 256, (20, 3, 32, 32), dtype=torch.uint8))
    report = evaluate(
        images,
        Style(),
        metrics=["fd_wavelet", "ppl_w_end"],
        options={"ppl": {"distance": squared, "num_pairs": 10}},
        num_samples=20,
        cache_dir=str(tmp_path),
    )
    assert set(report.scalars) == {"fd_wavelet", "fd_wavelet_std", "ppl_w_end", "ppl_w_end_std"}
    assert report.protocol["num_samples"] == 20


def test_a_generator_of_gaussian_noise_is_warned_of_unit_latents(caplog):
    lengths(Linear(), ["ppl_z_full"], num_pairs=4)
    assert "`options={'ppl': {'z_length': 'gaussian'}}`" in caplog.text
    caplog.clear()
    walk(Style(), ["ppl_z_full", "ppl_w_full"])  # its mapping does not mind the length
    lengths(Linear(), ["ppl_z_full"], num_pairs=4, z_length="gaussian")
    assert caplog.text == ""


def test_half_precision_gets_a_warning(caplog):
    walk(Style().bfloat16(), ["ppl_w_end"], epsilon=0.1)
    assert "torch.bfloat16, in which steps of 0.1 are lost" in caplog.text


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        ({"mapping": None}, {}, TypeError, "`mapping` of Style must be callable"),
        ({}, {"mapping": "generator.mapping"}, ValueError, "need `generator.mapping` of Style, which is not there"),
        ({"synthesis": lambda w: torch.full((len(w), 3, 8, 8), torch.nan)}, {}, ValueError, "4 of 4 images of a path"),
        ({"synthesis": lambda w: torch.zeros(len(w), 3, 8, 8).byte()}, {}, TypeError, "need float images"),
        ({"synthesis": lambda w: torch.zeros(len(w), 2, 8, 8)}, {}, ValueError, "but got the shape"),
        ({}, {"distance": lambda a, b: torch.zeros(())}, ValueError, r"must have the shape \(2,\), but got shape \(\)"),
        ({}, {"distance": lambda a, b: 0.0}, ValueError, "but got float"),
        ({}, {"distance": lambda a, b: torch.full((len(a),), torch.nan)}, ValueError, "came out NaN"),
    ],
)
def test_what_cannot_be_measured(change, options, error, message):
    module = Style(channels=3)
    module.forward = lambda z: torch.zeros(len(z), 3, 32, 32)
    for name, value in change.items():
        setattr(module, name, value)
    with pytest.raises(error, match=message):
        walk(module, ["ppl_w_end"], **options)


def test_latents_of_zeros(monkeypatch):
    module, randn = Linear(), torch.randn
    monkeypatch.setattr(torch, "randn", lambda *size, **named: torch.zeros_like(randn(*size, **named)))
    with pytest.raises(ValueError, match="latent of zeros"):
        lengths(module, ["ppl_z_end"], num_pairs=4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"space": "w"}, "`options\\['ppl'\\]\\['space'\\]` is for the metric `ppl`; ppl_z_full says"),
        ({"crop": "yes"}, "must be True, False or None"),
        ({"epsilon": 0.0}, r"must be a number in \(0, 1\]"),
        ({"num_pairs": 1}, "must be an integer of at least 2"),
        ({"distance": "lpips"}, "must be one of lpips_alex"),
        ({"distance": "nowhere.distance"}, "names nothing that can be imported"),
        ({"z_length": "long"}, "must be 'unit' or 'gaussian'"),
        ({"pairs": 3}, "has no option 'pairs'; it takes: num_pairs"),
    ],
)
def test_bad_options_are_errors_at_once(options, message):
    with pytest.raises(ValueError, match=message):
        Settings(metrics=["ppl_z_full"], options={"ppl": options})


def test_a_distance_that_is_none():
    with pytest.raises(TypeError, match="must be a name or a callable"):
        Settings(metrics=["ppl_z_full"], options={"ppl": {"distance": 3}})
    with pytest.raises(ValueError, match="must be 'z' or 'w'"):
        Settings(metrics=["ppl"], options={"ppl": {"space": "y"}})


def test_finished_images_have_no_paths():
    images = TensorDataset(torch.zeros(4, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="ppl_w_end walks through a generator's latent space, but `fake` are finished"):
        evaluate(images, images, metrics=["ppl_w_end"])


def test_a_generator_that_does_not_say_what_it_is_made_of():
    module = nn.Flatten()
    module.sample_images = lambda n, generator: torch.zeros(n, 3, 8, 8)
    with pytest.raises(ValueError, match="`latent_dim`"):
        walk(module, ["ppl_z_end"])


def test_every_published_name_is_known():
    names = [metric.name for metric in Settings(metrics=[*PUBLISHED, "ppl"]).walks]
    assert names == ["ppl_z_full", "ppl_z_end", "ppl_w_full", "ppl_w_end", "ppl2_w_end", "ppl"]
