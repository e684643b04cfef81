"""Which outputs of extractors are kept."""

from typing import Any

import pytest
from torch import Tensor, nn

from lightning_synthqual import Metric
from lightning_synthqual.distributed import Ranks
from lightning_synthqual.evaluation.evaluator import Evaluator
from lightning_synthqual.evaluation.plan import make_plan
from lightning_synthqual.evaluation.sets import read_generated
from lightning_synthqual.evaluation.workspace import Workspace
from lightning_synthqual.extractors import Extractor, Identity
from lightning_synthqual.images.reference import ImageSet


class TwoOutputs(nn.Module):
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        rows = images.float().flatten(1)
        return {"pool": rows[:, ::16], "logits": rows[:, ::64]}


class OfLogits(Metric):
    output = "logits"

    def score(self, state: Tensor, fake: Tensor) -> Tensor:
        return (fake.mean(0) - state.mean(0)).norm()


class OfGeneratedLogits(OfLogits):
    reads_real = False

    def score(self, state: None, fake: Tensor) -> Tensor:
        return fake.mean()


class OfBoth(Metric):
    def score_set(self, state: Any, generated: Any) -> float:
        return sum(generated.rows("mine", name).mean().item() for name in ("pool", "logits"))


@pytest.fixture
def outputs(clouds, tmp_path):
    """Outputs that are kept of real and of generated images, with the report."""

    def kept(*metrics: Any) -> tuple[set[str], set[str], Any]:
        network = Extractor(TwoOutputs(), Identity("mine", "custom", "none"), embedding="pool")
        plan = make_plan(metrics, extractors={"mine": network}, cache_dir=str(tmp_path))
        evaluator = Evaluator(Workspace(plan, Ranks()), ImageSet(clouds[0], "real"))
        fake = ImageSet(clouds[2], "fake")
        generated = read_generated(evaluator.workspace, fake)
        real = evaluator.reference.main.stored.features["mine"]
        return set(real), set(generated.extracted.features["mine"]), evaluator.evaluate_images(fake)

    return kept


def test_what_no_metric_reads_is_not_kept(outputs):
    of_both, logits = OfBoth("both", extractor="mine"), OfLogits("logits", extractor="mine")
    assert outputs("kd_mine")[:2] == ({"pool"}, {"pool"})
    assert outputs(logits)[:2] == ({"logits"}, {"logits"})
    generated = OfGeneratedLogits("mean", extractor="mine")
    assert outputs("kd_mine", generated)[:2] == ({"pool"}, {"pool", "logits"})
    assert outputs("kd_mine", logits)[:2] == ({"pool", "logits"}, {"pool", "logits"})
    assert outputs("kd_mine", of_both)[:2] == ({"pool", "logits"}, {"pool", "logits"})


def test_values_do_not_depend_on_what_other_metrics_read(outputs):
    logits = OfLogits("logits", extractor="mine")
    alone = {**outputs("kd_mine")[2].scalars, **outputs(logits)[2].scalars}
    assert outputs("kd_mine", logits)[2].scalars == pytest.approx(alone, rel=1e-12)


def test_an_output_that_is_not_there_is_named_with_those_that_are(outputs):
    class OfNothing(OfLogits):
        output = "tokens"

    with pytest.raises(ValueError, match="has no output 'tokens'; it gives logits, pool"):
        outputs("kd_mine", OfNothing("mine", extractor="mine"))


def test_the_network_of_a_metric_that_reads_no_real_images_does_not_see_them(clouds, tmp_path):
    seen: list[int] = []

    class Seeing(TwoOutputs):
        def forward(self, images: Tensor) -> dict[str, Tensor]:
            seen.append(len(images))
            return super().forward(images)

    network = Extractor(Seeing(), Identity("mine", "custom", "none"), embedding="pool")
    metrics = ["kd_pixels", OfGeneratedLogits("mean", extractor="mine")]
    plan = make_plan(metrics, extractors={"mine": network}, cache_dir=str(tmp_path))
    Evaluator(Workspace(plan, Ranks()), ImageSet(clouds[0], "real"))
    assert seen == []
