from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor
from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16

from lightning_synthqual.extractors import load

Pictures = Callable[..., Tensor]
Relative = Callable[[Tensor, Tensor], float]


@pytest.mark.slow
def test_features_are_those_of_torch_fidelity(trunks: dict[str, Path], pictures: Pictures, relative: Relative) -> None:
    weights = str(trunks["vgg16"])
    extractor = load("vgg16", weights=weights)
    theirs = FeatureExtractorVGG16("theirs", ["fc2_relu"], weights)
    for size in [(40, 60), (1, 1), (300, 260)]:
        images = pictures(2, *size)
        (expected,) = theirs(images)
        found = extractor(images)["features"]
        assert found.shape == (2, 4096)
        assert relative(found, expected) < 1e-5
    assert (extractor.identity.name, extractor.identity.origin) == ("vgg16", "custom")


def test_weights_of_another_network_are_an_error(trunks: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match=r"7be5be79\.pth` does not fit VGG: \d+ of \d+ entries differ") as caught:
        load("vgg16", weights=str(trunks["alexnet"]))
    assert len(str(caught.value)) < 600
