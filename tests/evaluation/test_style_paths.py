"""Path lengths of style-based generators: noise, labels, parts by name, and what is no generator for them."""

import lpips
import pytest
import torch
import torchvision
from torch import nn
from torch.utils.data import TensorDataset

from lightning_synthqual import evaluate
from lightning_synthqual.distributed import Ranks
from lightning_synthqual.evaluation.evaluator import Evaluator
from lightning_synthqual.evaluation.plan import make_plan
from lightning_synthqual.evaluation.workspace import Workspace
from lightning_synthqual.images.randomness import Stream, derived_seed
from lightning_synthqual.images.reference import ImageSet
from lightning_synthqual.images.sampling import Sampler
from lightning_synthqual.metrics.path_length import slerp

SCALE = 255 / 2  # from the generator's range to grey levels


def squared(one, other):
    """Squared Euclidean distance, in the units of a generator that spans (-1, 1)."""
    return ((one - other) / SCALE).double().square().sum(dim=(1, 2, 3))


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
    plan = make_plan(["ppl_w_end"], options={"ppl": {"distance": squared, "num_pairs": 12}})
    evaluator = Evaluator(Workspace(plan, Ranks()), None)
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


def by_hand(module, measure):
    """Both lengths of six pairs, step by step: (z, full, cropped) and (w, end, whole)."""
    z, t = [], []
    for index in range(6):
        draw = torch.Generator().manual_seed(derived_seed(0, Stream.PATH_PAIR, index))
        z.append(torch.randn(2, 8, generator=draw))
        t.append(torch.rand((), generator=draw, dtype=torch.float64))
    first, second = torch.stack(z, dim=1).double()
    t = torch.stack(t)
    with torch.no_grad():
        ends = [module(slerp(first, second, each).float())[:, :, 12:28, 8:24] for each in (t, t + 1e-2)]
        in_z = measure(*ends).flatten().double() / 1e-2**2
        w = [module.mapping(each.float()) for each in (first, second)]
        ends = [module.synthesis(torch.lerp(*w, each)) for each in (0.0, 1e-2)]
        in_w = measure(*ends).flatten().double() / 1e-2**2
    return in_z.mean().item(), in_w.mean().item()


def test_the_ends_of_paths_are_those_of_the_published_recipe():
    module = Style(channels=3, side=32)
    found = walk(module, ["ppl_z_full", "ppl2_w_end"], num_pairs=6, epsilon=1e-2, noise="none").scalars
    in_z, in_w = by_hand(module, lambda one, other: (one - other).double().square().sum(dim=(1, 2, 3)))
    assert found["ppl_z_full"] == pytest.approx(in_z, rel=1e-3)
    assert found["ppl2_w_end"] == pytest.approx(in_w, rel=1e-3)


@pytest.mark.slow
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
    in_z, in_w = by_hand(module, peer)
    assert report.scalars["ppl_z_full"] == pytest.approx(in_z, rel=1e-4)
    assert report.scalars["ppl2_w_end"] == pytest.approx(in_w, rel=1e-4)
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
        ({}, {"distance": lambda a, b: torch.full((len(a),), torch.nan)}, ValueError, "is NaN or infinite"),
    ],
)
def test_what_cannot_be_measured(change, options, error, message):
    module = Style(channels=3)
    module.forward = lambda z: torch.zeros(len(z), 3, 32, 32)
    for name, value in change.items():
        setattr(module, name, value)
    with pytest.raises(error, match=message):
        walk(module, ["ppl_w_end"], **options)


def test_finished_images_have_no_paths():
    images = TensorDataset(torch.zeros(4, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="ppl_w_end samples a generator's latent space, but `fake` are finished"):
        evaluate(images, images, metrics=["ppl_w_end"])


def test_a_generator_that_does_not_say_what_it_is_made_of():
    module = nn.Flatten()
    module.sample_images = lambda n, generator: torch.zeros(n, 3, 8, 8)
    with pytest.raises(ValueError, match="`latent_dim`"):
        walk(module, ["ppl_z_end"])


class Growing(Style):
    """Draws noise in its forward pass, of a strength that is learned and is 0 at first, as in StyleGAN."""

    def __init__(self) -> None:
        super().__init__(channels=3)
        self.strength = nn.Parameter(torch.zeros(()))

    def synthesis(self, w):
        images = super().synthesis(w)
        return images + self.strength * torch.randn_like(images)


@pytest.fixture
def growing(tmp_path):
    """An evaluator that has tried a generator of no noise yet: ``growing(metrics) -> module, evaluate``."""

    def make(metrics):
        module = Growing()
        sampler = Sampler(module, owner=module)
        options = {"ppl": {"distance": squared, "num_pairs": 6}}
        plan = make_plan(metrics, options=options, cache_dir=str(tmp_path), batch_size=8)
        real = None
        if plan.reads_real:
            draw = torch.Generator().manual_seed(0)
            images = torch.randint(0, 256, (12, 3, 32, 32), dtype=torch.uint8, generator=draw)
            real = ImageSet(TensorDataset(images), "real")
        evaluator = Evaluator(Workspace(plan, Ranks()), real, sampler=sampler, num_samples=8)
        return module, lambda: evaluator.evaluate(sampler, 8)

    return make


def test_noise_that_has_grown_since_the_first_check_is_an_error(growing):
    module, evaluate_again = growing(["ppl_w_end"])
    assert evaluate_again().scalars["ppl_w_end"] > 0
    nn.init.constant_(module.strength, 0.2)
    with pytest.raises(ValueError, match=r"ppl_w_end.*Two images of the same latents differ by up to"):
        evaluate_again()
    nn.init.zeros_(module.strength)
    assert evaluate_again().scalars["ppl_w_end"] > 0


def test_noise_that_has_grown_costs_the_path_length_alone(growing, caplog):
    module, evaluate_again = growing(["kd_wavelet", "ppl_w_end"])
    assert {"kd_wavelet", "ppl_w_end"} <= set(evaluate_again().scalars)
    nn.init.constant_(module.strength, 0.2)
    report = evaluate_again()
    assert set(report.scalars) == {"kd_wavelet", "kd_wavelet_std"}
    assert set(report.protocol["failed"]) == {"ppl_w_end"}
    assert "Two images of the same latents differ" in report.protocol["failed"]["ppl_w_end"]
    assert "ppl_w_end failed and is not reported" in caplog.text


def test_a_mapping_that_does_not_mind_the_length_needs_no_warning(caplog):
    walk(Style(), ["ppl_z_full", "ppl_w_full"])
    assert caplog.text == ""
