"""Images and networks that the evaluation tests share."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from torch import Tensor, nn
from torch.utils.data import Dataset

from lightning_synthqual.distributed import Ranks
from lightning_synthqual.evaluation.evaluator import Evaluator
from lightning_synthqual.evaluation.plan import Plan
from lightning_synthqual.evaluation.workspace import Workspace
from lightning_synthqual.extractors.base import Extractor, Identity
from lightning_synthqual.images.reference import ImageSet


class Flat(nn.Module):
    """Box averages, 48 features of images 16 x 16."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(images.float() / 255, 4).flatten(1)


class Counted(Dataset[Tensor]):
    """Images, and how often one was read."""

    def __init__(self, images: Tensor) -> None:
        self.images = images
        self.log: list[int] = []  # a number would be restored after the images were read

    @property
    def reads(self) -> int:
        return len(self.log)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        self.log.append(index)
        return self.images[index]


class WithNetworks(Workspace):
    """A workspace whose networks are given."""

    def __init__(self, plan: Plan, networks: Mapping[str, nn.Module], embedding: str) -> None:
        super().__init__(plan, Ranks())
        self.extractors = {
            name: Extractor(network, Identity(name, "custom", "none"), embedding=embedding)
            for name, network in networks.items()
        }

    def load_networks(self) -> None:
        """Nothing: they are there."""


@pytest.fixture
def flat() -> nn.Module:
    """A network of 48 box averages."""
    return Flat()


@pytest.fixture
def counted() -> Callable[[Tensor], Counted]:
    """``counted(images)``: a data set that counts how often an item is read."""
    return Counted


@pytest.fixture
def with_networks() -> Callable[..., Any]:
    """``with_networks(plan, real, fake, {"inception": network}, embedding)``: a report by given networks."""

    def score(plan: Plan, real: Any, fake: Any, networks: Mapping[str, nn.Module], embedding: str) -> Any:
        evaluator = Evaluator(WithNetworks(plan, networks, embedding), ImageSet(real, "real"))
        return evaluator.evaluate_images(ImageSet(fake, "fake"))

    return score
