import functools
import os
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_synthqual import QualityMonitor, Report, evaluate
from lightning_synthqual.cli import evaluate as command
from lightning_synthqual.cli import main
from lightning_synthqual.cli.checkpoints import load_generator
from lightning_synthqual.evaluation.report import pack

RAN: list[str] = []


class Width:
    """A hyperparameter that is more than a plain value; it notes that its code has run."""

    def __init__(self, units: int) -> None:
        self.units = units

    def __setstate__(self, state: dict[str, Any]) -> None:
        RAN.append("setstate")
        vars(self).update(state)


class Leaves:
    """Leaves a trace when it is unpickled."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce__(self) -> Any:
        return os.mkdir, (self.name,)


class Given(pl.LightningModule):
    """A generator whose arguments are objects."""

    latent_dim = 4

    def __init__(self, net: nn.Module | None = None, width: Width | None = None) -> None:
        super().__init__()
        units = width.units if width is not None else 3
        self.net = nn.Linear(4, units * 16 * 16) if net is None else net
        self.ema = nn.Linear(4, 3 * 16 * 16)
        self.seen: list[str] = []

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.seen = list(checkpoint)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.net(z)).view(-1, 3, 16, 16)


class Needs(Given):
    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)


class Lenient(Given):
    strict_loading = False


class Part(nn.Module):
    latent_dim = 4

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.layer(z)).view(-1, 3, 16, 16)


def make() -> Given:
    return Given(nn.Linear(4, 3 * 16 * 16))


def make_lenient() -> Lenient:
    return Lenient(nn.Linear(4, 3 * 16 * 16))


def make_number() -> int:
    return 3


def make_with(argument: int) -> Given:
    return make()


def averaged(module: Given) -> nn.Module:
    return Part(module.ema)


def count(module: nn.Module) -> int:
    return 3


number = 3


def saved(path: Path, module: nn.Module, **more: Any) -> str:
    content = {"state_dict": module.state_dict(), "pytorch-lightning_version": pl.__version__, **more}
    torch.save(content, path)
    return str(path)


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("averaging", [False, True])
def test_a_checkpoint_scores_as_it_did_in_training(
    words: list[str],
    folders: dict[str, Path],
    tmp_path: Path,
    painter: type[pl.LightningModule],
    painter_path: str,
    network: dict[str, str],
    replaced: Callable[..., list[str]],
    written: Callable[[], Report],
    averaging: bool,
) -> None:
    metrics = ("fd_mine", "precision_mine", "closer_to_train_mine")
    images = torch.from_numpy(np.load(f"{folders['train']}.npy")).float() / 127.5 - 1
    monitor = QualityMonitor(
        real=folders["train"],
        held_out=folders["held_out"],
        metrics=metrics,
        extractors={"mine": network},
        num_samples=33,
        batch_size=8,
        cache_dir=str(tmp_path / "cache"),
    )
    callbacks: list[pl.Callback] = [monitor]
    if averaging:
        callbacks.append(pl.callbacks.WeightAveraging(avg_fn=lambda average, new, _: average + 0.1 * (new - average)))
    pl.seed_everything(0, verbose=False)
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(painter(width=6), DataLoader(TensorDataset(images), batch_size=10))
    trainer.save_checkpoint(tmp_path / "painter.ckpt")
    checkpoint = [*replaced(words, fake=tmp_path / "painter.ckpt"), "--module", painter_path]
    assert main([*checkpoint, "--metrics", ",".join(metrics), "--num-samples", "33"]) == 0
    (line,) = (tmp_path / "reports.jsonl").read_text().splitlines()[-1:]
    trained = monitor.reports[-1].scalars
    assert Report.from_json(line).scalars == trained
    assert written().scalars == {name: value for name, value in trained.items() if "_change" not in name}


def test_a_function_makes_the_module_that_the_weights_go_into(tmp_path: Path) -> None:
    module = make()
    path = saved(tmp_path / "x.ckpt", module, mine=3)
    loaded = load_generator(path, f"{__name__}.make").module
    assert same_weights(loaded, module)
    assert loaded.seen == ["state_dict", "pytorch-lightning_version", "mine"]
    torch.save(module.state_dict(), path)
    assert same_weights(load_generator(path, f"{__name__}.make").module, module)


def test_a_function_needs_no_hyperparameters_whose_code_never_runs(tmp_path: Path) -> None:
    module = make()
    path = saved(tmp_path / "x.ckpt", module, hyper_parameters={"width": Width(3)}, callbacks={"a": [Width(1)]})
    RAN.clear()
    assert same_weights(load_generator(path, f"{__name__}.make").module, module)
    assert RAN == []


def test_classes_in_hyperparameters_are_named_with_the_ways_out(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.ckpt", make(), hyper_parameters={"width": Width(3)})
    RAN.clear()
    with pytest.raises(ValueError, match=rf"plain values: {__name__}.Width\. .*`--module package.make`.*`--trust-ch"):
        load_generator(path, f"{__name__}.Given")
    assert RAN == []


def test_a_trusted_checkpoint_gives_its_hyperparameters(tmp_path: Path) -> None:
    module = Given(width=Width(3))
    path = saved(tmp_path / "x.ckpt", module, hyper_parameters={"width": Width(3)})
    RAN.clear()
    assert same_weights(load_generator(path, f"{__name__}.Given", trusted=True).module, module)
    assert RAN


def test_objects_outside_of_the_hyperparameters_do_not_matter(tmp_path: Path) -> None:
    module = Given()
    path = saved(tmp_path / "x.ckpt", module, loops={"a": Width(3)}, extra=[Width(2)])
    assert same_weights(load_generator(path, f"{__name__}.Given").module, module)


class Kind(Enum):
    SMALL = 1


class OwnDict(dict[str, int]):
    pass


OBJECTS: dict[str, Any] = {
    "class": nn.ReLU,
    "enum": Kind.SMALL,
    "module": nn.Sequential(nn.Linear(1, 1)),
    "namespace": Namespace(units=3, deep=[Kind.SMALL]),
    "path": Path("data"),
    "partial": functools.partial(nn.Linear, 3),
    "defaultdict": defaultdict(list, a=[1]),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_of_many_kinds_in_hyperparameters(tmp_path: Path, name: str) -> None:
    module = make()
    path = saved(tmp_path / "x.ckpt", module, hyper_parameters={"unused": OBJECTS[name]})
    assert same_weights(load_generator(path, f"{__name__}.make").module, module)
    assert same_weights(load_generator(path, f"{__name__}.Given", trusted=True).module, module)
    if name == "defaultdict":
        assert same_weights(load_generator(path, f"{__name__}.Given").module, module)
    else:
        with pytest.raises(ValueError, match="hyperparameters that are more than tensors and plain values"):
            load_generator(path, f"{__name__}.Given")


def test_what_even_trust_does_not_read_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.ckpt", make(), hyper_parameters={"width": OwnDict(a=3)})
    with pytest.raises(
        ValueError, match=rf"read \(.*OwnDict.*\)\. It holds objects of {__name__}\.OwnDict\.$"
    ) as caught:
        load_generator(path, f"{__name__}.Given", trusted=True)
    assert "arbitrary code" not in str(caught.value)


def test_weights_may_be_safetensors(tmp_path: Path) -> None:
    module = make()
    save_file(module.state_dict(), tmp_path / "x.safetensors")
    assert same_weights(load_generator(str(tmp_path / "x.safetensors"), f"{__name__}.make").module, module)


@pytest.mark.parametrize("trusted", [False, True])
def test_commands_of_the_system_never_run(tmp_path: Path, trusted: bool) -> None:
    trace = tmp_path / "trace"
    path = saved(tmp_path / "x.ckpt", make(), hyper_parameters={"width": Leaves(str(trace))})
    with pytest.raises(ValueError, match="could not be read"):
        load_generator(path, f"{__name__}.Given", trusted=trusted)
    assert not trace.exists()


def test_a_module_that_loads_leniently_may_have_other_weights(tmp_path: Path) -> None:
    module = make()
    state = {name: value for name, value in module.state_dict().items() if not name.startswith("ema")}
    torch.save({"state_dict": {**state, "loss.weight": torch.ones(3)}}, tmp_path / "x.ckpt")
    loaded = load_generator(str(tmp_path / "x.ckpt"), f"{__name__}.make_lenient").module
    assert torch.equal(loaded.net.weight, module.net.weight)
    with pytest.raises(ValueError, match=r"x\.ckpt` does not fit Given: 3 of 5 entries differ"):
        load_generator(str(tmp_path / "x.ckpt"), f"{__name__}.make")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "`--module='.*nothing'` names nothing that can be imported"),
        ("number", "must be a LightningModule or a function that returns a module, but is int"),
        ("make_number", "make_number` must return a module, but returned int"),
        ("make_with", r"is called without arguments to make the module, and failed \(TypeError: .*argument"),
        ("Needs", r"could not be made from the checkpoint .*net.* give a function that returns the module"),
    ],
)
def test_what_is_no_module_is_named(tmp_path: Path, name: str, message: str) -> None:
    path = saved(tmp_path / "x.ckpt", make())
    with pytest.raises((TypeError, ValueError), match=message):
        load_generator(path, f"{__name__}.{name}")


CONTENT = {
    "tensor": (torch.ones(3), "must be a dict with `state_dict`, but holds Tensor"),
    "number": (3, "but holds int"),
    "empty dict": ({}, "but holds an empty dict"),
    "no weights": ({"epoch": 3}, "holds no `state_dict`, but epoch"),
    "weights that are none": ({"state_dict": {"a": 1}}, "holds no `state_dict`, but state_dict"),
}


@pytest.mark.parametrize("name", CONTENT)
@pytest.mark.parametrize("module", ["make", "Given"])
def test_what_is_no_checkpoint_is_named(tmp_path: Path, name: str, module: str) -> None:
    content, message = CONTENT[name]
    torch.save(content, tmp_path / "x.ckpt")
    if (name, module) == ("weights that are none", "Given"):
        message = "could not be made from the checkpoint"
    with pytest.raises(ValueError, match=message):
        load_generator(str(tmp_path / "x.ckpt"), f"{__name__}.{module}")


@pytest.mark.parametrize("damage", ["empty", "cut", "text"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, damage: str) -> None:
    path = Path(saved(tmp_path / "x.ckpt", make()))
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "cut": content[:-200], "text": b"Not Found"}[damage])
    with pytest.raises(ValueError, match=r"^The checkpoint `.*x\.ckpt` could not be read \("):
        load_generator(str(path), f"{__name__}.make")


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist or is no file"):
        load_generator(str(tmp_path), f"{__name__}.make")


def history_of(*protocols: dict[str, Any]) -> dict[str, Any]:
    """The state of a monitor, with a report for each protocol."""
    return {"history": pack([Report({"kid": 0.5}, protocol) for protocol in protocols])}


@pytest.mark.parametrize(
    ("callbacks", "precision"),
    [
        ({"QualityMonitor{}": history_of({}, {"seed": 0, "sampling": {"precision": "bf16-mixed"}})}, "bf16-mixed"),
        ({"QualityMonitor{}": history_of({"seed": 0})}, None),
        ({"QualityMonitor{}": {"history": {}}, "EarlyStopping": {"history": 3}}, None),
        ({}, None),
    ],
)
def test_the_precision_of_sampling_is_the_trainings(
    tmp_path: Path, callbacks: dict[str, Any], precision: str | None
) -> None:
    path = saved(tmp_path / "x.ckpt", make(), callbacks=callbacks)
    assert load_generator(path, f"{__name__}.make").precision == precision


def test_model_chooses_what_is_sampled(
    words: list[str],
    folders: dict[str, Path],
    tmp_path: Path,
    network: dict[str, str],
    replaced: Callable[..., list[str]],
    written: Callable[[], Report],
    capsys: pytest.CaptureFixture[str],
) -> None:
    module = make()
    path = saved(tmp_path / "x.ckpt", module)
    checkpoint = [*replaced(words, fake=path), "--module", f"{__name__}.make", "--num-samples", "20"]
    checkpoint += ["--metrics", "kd_mine", "--model"]
    assert main([*checkpoint, f"{__name__}.averaged"]) == 0
    expected = evaluate(
        folders["train"],
        averaged(module),
        held_out=folders["held_out"],
        metrics=["kd_mine"],
        extractors={"mine": network},
        num_samples=20,
        device="cpu",
    )
    assert written().scalars == expected.scalars
    assert main([*checkpoint, f"{__name__}.count"]) == 2
    assert "count` must return the module to sample, but returned int" in capsys.readouterr().err


def test_precision_is_the_checkpoints_unless_it_is_given(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaced: Callable[..., list[str]]
) -> None:
    calls: list[Any] = []

    def record(*_: object, **arguments: object) -> Report:
        calls.append(arguments["precision"])
        return Report(scalars={}, protocol={})

    monkeypatch.setattr(command, "evaluate", record)
    path = saved(
        tmp_path / "x.ckpt", make(), callbacks={"QualityMonitor": history_of({"sampling": {"precision": "bf16-mixed"}})}
    )
    checkpoint = [*replaced(words, fake=path), "--module", f"{__name__}.make"]
    assert main(checkpoint) == 0
    assert main([*checkpoint, "--precision", "32-true"]) == 0
    assert calls == ["bf16-mixed", "32-true"]


@pytest.mark.parametrize("model", ["ema_part", f"{__name__}.its_part"])
def test_model_may_be_an_attribute_path(
    words: list[str], tmp_path: Path, replaced: Callable[..., list[str]], written: Callable[[], Report], model: str
) -> None:
    path = saved(tmp_path / "x.ckpt", make_parted())
    checkpoint = [*replaced(words, fake=path), "--module", f"{__name__}.make_parted", "--num-samples", "20"]
    assert main([*checkpoint, "--metrics", "kd_mine", "--model", model]) == 0
    sampling = written().protocol["sampling"]
    assert sampling["model"]["name"] == model
    assert sampling["weights"] == f"of model={model}"


def test_a_model_that_the_checkpoints_module_lacks_is_named(
    words: list[str], tmp_path: Path, replaced: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path / "x.ckpt", make_parted())
    checkpoint = [*replaced(words, fake=path), "--module", f"{__name__}.make_parted", "--num-samples", "20"]
    assert main([*checkpoint, "--metrics", "kd_mine", "--model", "ema_parts"]) == 2
    error = capsys.readouterr().err
    assert "`--model ema_parts` is neither" in error
    assert "Did you mean 'ema_part'" in error


def make_parted() -> Given:
    module = make()
    module.ema_part = Part(nn.Linear(4, 3 * 16 * 16))
    return module


def its_part(module: Given) -> nn.Module:
    return module.ema_part


@pytest.mark.parametrize(
    ("available", "given", "device"), [(True, None, "cuda"), (False, None, "cpu"), (True, "0", "0")]
)
def test_a_checkpoints_module_goes_to_a_gpu_if_there_is_one(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    replaced: Callable[..., list[str]],
    available: bool,
    given: str | None,
    device: str,
) -> None:
    calls: list[Any] = []

    def record(*_: object, **arguments: object) -> Report:
        calls.append(arguments["device"])
        return Report(scalars={}, protocol={})

    monkeypatch.setattr(command, "evaluate", record)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    place = words.index("--device")
    words = [*words[:place], *(["--device", given] if given else []), *words[place + 2 :]]
    checkpoint = replaced(words, fake=saved(tmp_path / "x.ckpt", make()))
    assert main([*checkpoint, "--module", f"{__name__}.make"]) == 0
    assert calls == [device]
