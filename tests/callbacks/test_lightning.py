"""Lightning's internals are as expected.

Tried: lightning and pytorch_lightning 2.6.6. If a test fails with another version, the function of
`lightning_synthqual.callbacks.lightning` that it names has to follow.
"""

import importlib
import pickle

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_synthqual.callbacks import lightning as internals

TRIED = ("2.6.6",)


@pytest.fixture(params=["lightning.pytorch", "pytorch_lightning"])
def package(request):
    return pytest.importorskip(request.param)


def hint(package) -> str:
    return f"{package.__name__} {package.__version__}; tried are {', '.join(TRIED)}"


def test_the_internals_are_there(package):
    trainer = package.Trainer(logger=False, accelerator="cpu", enable_progress_bar=False)
    checkpoint = package.callbacks.ModelCheckpoint(monitor="x")
    assert isinstance(trainer.callbacks, list), hint(package)
    assert trainer.fast_dev_run is False, hint(package)
    assert trainer.fit_loop.epoch_loop._batches_that_stepped == 0, hint(package)
    assert trainer.fit_loop.epoch_loop.batch_progress.total.ready == 0, hint(package)
    assert trainer.fit_loop.epoch_loop.batch_progress.total.completed == 0, hint(package)
    assert callable(trainer.fit_loop._data_source.is_defined), hint(package)
    assert trainer.precision == "32-true", hint(package)
    for name in ("_monitor_candidates", "_save_topk_checkpoint", "_save_last_checkpoint", "best_k_models", "dirpath"):
        assert hasattr(checkpoint, name), hint(package)
    strategy = importlib.import_module(f"{package.__name__}.strategies").ModelParallelStrategy
    assert isinstance(strategy.distributed_sampler_kwargs, property), hint(package)
    assert importlib.import_module(f"{package.__name__}.strategies").FSDPStrategy.__name__ in internals._SHARDING
    assert importlib.import_module(f"{package.__name__}.strategies").DeepSpeedStrategy.__name__ in internals._SHARDING


def test_the_average_is_there(package):
    module = pytest.importorskip(f"{package.__name__}.callbacks.weight_averaging")  # since 2.6
    averaging = module.EMAWeightAveraging()
    assert internals.is_averaging(averaging), hint(package)
    assert not internals.is_averaging(package.Callback())
    assert "_average_model" in vars(averaging), hint(package)
    assert internals.average_model(averaging) is None
    averaging._average_model = torch.optim.swa_utils.AveragedModel(torch.nn.Linear(2, 2))
    assert int(internals.average_model(averaging).n_averaged) == 0


def test_state_keys_have_the_form_that_is_searched_for(package):
    class Monitor(package.Callback):
        pass

    one = Monitor()._generate_state_key(prefix="a", metrics=("fid",))
    other, longer = one.replace("'a'", "'b'"), one.replace("'a'", "'ab'")
    checkpoint = {"callbacks": {one: {"n": 1}, other: {"n": 2}, longer: {"n": 3}, Monitor: {"n": 4}}}
    assert internals.saved_states(checkpoint, Monitor, prefix="a") == [{"n": 1}], hint(package)
    alone = Monitor()._generate_state_key(prefix="c")
    assert internals.saved_states({"callbacks": {alone: {"n": 5}}}, Monitor, prefix="c") == [{"n": 5}], hint(package)


def test_train_data_are_found_before_the_first_batch(package):
    loader = DataLoader(TensorDataset(torch.zeros(3)))
    trainer = package.Trainer(logger=False, accelerator="cpu", enable_progress_bar=False)
    trainer.fit_loop._data_source.instance = package.LightningModule()  # as in validate: no data of its own
    assert internals.train_loader(trainer, needed=True) is None, hint(package)
    trainer.fit_loop._data_source.instance = loader
    assert internals.train_loader(trainer, needed=True) is loader, hint(package)
    trainer.fit_loop._data_source.instance = [loader, loader]
    assert internals.train_loader(trainer, needed=False) is None
    with pytest.raises(ValueError, match="not one DataLoader but list"):
        internals.train_loader(trainer, needed=True)


def test_strategies_with_flat_parameters_are_known_by_name():
    class FSDPStrategy: ...

    class Own(FSDPStrategy): ...

    class Trainer:
        strategy = Own()

    assert internals.shards_parameters(Trainer())
    Trainer.strategy = object()
    assert not internals.shards_parameters(Trainer())


def test_the_same_trainer_is_known_and_a_copy_knows_none(package):
    first, second = (package.Trainer(logger=False, accelerator="cpu") for _ in range(2))
    same = internals.SameTrainer()
    assert [same(first), same(first), same(second), same(first)] == [False, True, False, False]
    assert pickle.loads(pickle.dumps(same))(first) is False


def test_the_mode_of_a_checkpoint_callback_can_be_set_late(package):
    for mode in ("min", "max"):
        late, early = (package.callbacks.ModelCheckpoint(monitor="x", mode=each) for each in ("min", mode))
        internals.set_mode(late, mode)
        assert (late.mode, late.kth_value) == (early.mode, early.kth_value), hint(package)
        assert late.state_key == early.state_key, hint(package)
