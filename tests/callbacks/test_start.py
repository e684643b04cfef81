"""What can be checked before any image is read is checked before."""

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from lightning_synthqual import QualityCheckpoint, QualityStopping


class Counted(Dataset):
    reads = 0

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        Counted.reads += 1
        return self.images[index]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("kind", [QualityStopping, QualityCheckpoint])
def test_a_score_that_nothing_logs_is_an_error_before_any_read(tiny_gan, monitor, trainer, loader, images, first, kind):
    Counted.reads = 0
    quality, other = monitor(real=Counted(images)), kind("quality/fid")
    fitting = trainer(*([other, quality] if first else [quality, other]), enable_checkpointing=True)
    with pytest.raises(ValueError, match=rf"`{kind.__name__}\(monitor='quality/fid'\)` waits for .*quality/fd_wavelet"):
        fitting.fit(tiny_gan(), loader)
    assert Counted.reads == 0
    trainer(other, enable_checkpointing=True).validate(tiny_gan(validates=True), loader, verbose=False)


class Stream(IterableDataset):
    def __init__(self, images: torch.Tensor) -> None:
        self.images = images

    def __iter__(self):
        return iter(self.images)


class Step:
    """A training step on batches of images without a tuple around them."""

    def training_step(self, batch, batch_idx):
        return super().training_step([batch], batch_idx)


def test_a_stream_without_a_length_is_read_as_the_trainers_data(tiny_gan, monitor, trainer, images):
    gan = tiny_gan()
    gan.__class__ = type("StreamGan", (Step, type(gan)), {})
    quality = monitor(every_n_train_batches=2)
    trainer(quality, max_epochs=1).fit(gan, DataLoader(Stream(images), 16))
    assert quality.reports[0].protocol["reference"]["num_images"] == len(images)
    alone = monitor(real=DataLoader(Stream(images), 16), every_n_train_batches=2)
    gan = tiny_gan()
    gan.__class__ = type("StreamGan", (Step, type(gan)), {})
    trainer(alone, max_epochs=1).fit(gan, DataLoader(Stream(images), 16))
    assert [report.scalars for report in quality.reports] == [report.scalars for report in alone.reports]
