"""Data of the trainer's other stages as held-out images."""

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_synthqual import Images


class Data(pl.LightningDataModule):
    """Sets of 61 training, 37 validation and 29 test images, the last of which `setup("test")` makes."""

    def setup(self, stage):
        draw = torch.Generator().manual_seed(len(stage))
        torch.rand(1)  # a setup that draws random numbers
        if stage == "test":
            self.test_set = TensorDataset(torch.rand(29, 3, 8, 8, generator=draw) * 2 - 1)
        else:
            self.train_set = TensorDataset(torch.rand(61, 3, 8, 8, generator=draw) * 2 - 1)
            self.val_set = TensorDataset(torch.rand(37, 3, 8, 8, generator=draw) * 2 - 1)

    def train_dataloader(self):
        return DataLoader(self.train_set, batch_size=16)

    def val_dataloader(self):
        return DataLoader(self.val_set, batch_size=16)

    def test_dataloader(self):
        return DataLoader(self.test_set, batch_size=16)


class NoTest(Data):
    test_dataloader = pl.LightningDataModule.test_dataloader


def fit(tmp_path, module, callbacks, *data, **kwargs):
    trainer = pl.Trainer(
        default_root_dir=tmp_path, max_epochs=1, accelerator="cpu", logger=False, callbacks=callbacks,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(module, *data, **kwargs)
    return trainer


@pytest.mark.parametrize(
    ("held_out", "count"),
    [("val", 37), ("test", 29), (lambda data: data.val_set, 37), (Images("test", range=(-1, 1)), 29)],
)
def test_the_data_module_gives_the_held_out_images(tmp_path, tiny_gan, monitor, held_out, count):
    callback = monitor(held_out=held_out, metrics=("fd_wavelet",))
    data = Data()
    fit(tmp_path, tiny_gan(), [callback], datamodule=data)
    protocol = callback.reports[-1].protocol
    assert (protocol["other_real"]["num_images"], protocol["other_real"]["role"]) == (count, "held_out")
    assert protocol["reference"]["num_images"] == 61
    assert not hasattr(data, "test_set")  # it is as the fit has set it up


def test_loaders_that_were_given_to_fit_are_found(tmp_path, tiny_gan, monitor, loader):
    callback = monitor(held_out="val", metrics=("fd_wavelet",))
    data = Data()
    data.setup("fit")
    fit(tmp_path, tiny_gan(), [callback], loader, data.val_dataloader())
    assert callback.reports[-1].protocol["other_real"]["num_images"] == 37


def test_training_stays_as_it_is(tmp_path, tiny_gan, monitor):
    weights = []
    for callbacks in ([], [monitor(held_out="test", metrics=("fd_wavelet",))]):
        module = tiny_gan()
        fit(tmp_path, module, callbacks, datamodule=Data())
        weights.append(torch.cat([each.flatten() for each in module.parameters()]))
    assert torch.equal(*weights)


@pytest.mark.parametrize(
    ("held_out", "data", "error", "message"),
    [
        ("test", NoTest, ValueError, "held_out='test'.*test_dataloader"),
        (lambda data: data.nothing, Data, RuntimeError, "function given as `held_out`.*nothing"),
        (lambda data: None, Data, TypeError, "returned None"),
    ],
)
def test_missing_data_are_named(tmp_path, tiny_gan, monitor, held_out, data, error, message):
    with pytest.raises(error, match=message):
        fit(tmp_path, tiny_gan(), [monitor(held_out=held_out)], datamodule=data())
