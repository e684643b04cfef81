"""Whatever is handed over, the outcome is a number, or one error that names what was wrong."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from lightning_synthqual import QualityCheckpoint, QualityMonitor, QualityStopping, Report, evaluate
from lightning_synthqual.callbacks.arguments import CHECKPOINT_RULES, MONITOR_RULES, STOPPING_RULES
from lightning_synthqual.cli import main
from lightning_synthqual.evaluation.plan import SHARED_RULES

ERRORS = (ValueError, TypeError, FileNotFoundError, RuntimeError)
METRICS = ("kd_wavelet",)


def fuzz(examples: int) -> Any:
    """The same examples in each run; fixtures are of the session or hold nothing."""
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def outcome(function: Any, *words: str) -> Any:
    """What the function returns, or ``None`` after an error of ours that has one of the words in it."""
    try:
        return function()
    except ERRORS as error:
        found = error
    assert any(word in str(found) for word in words), f"{type(found).__name__}: {found}"
    return None


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """Paths that are made up lead nowhere else."""
    monkeypatch.chdir(tmp_path)


def images(count: int = 6, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 8, 8), generator=draw).to(torch.uint8)


class Items(torch.utils.data.Dataset):
    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


class Silent:
    """An object that can do nothing."""


words = st.text("abcdefgpixelswavelet_.:-é1", max_size=12)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 70),
    st.sampled_from([2**63, -(2**70), 10**400]),
    st.floats(),
    words,
    st.binary(max_size=3),
    st.sampled_from(
        [1j, Silent(), Silent, np.float32(1), np.int64(3), np.array([1.0]), torch.tensor(2), nn.Identity(), Path("x")]
    ),
)
junk = st.one_of(
    scalars,
    st.lists(scalars, max_size=3),
    st.tuples(scalars, scalars),
    st.dictionaries(st.one_of(words, st.integers(), st.none()), scalars, max_size=2),
    st.dictionaries(
        st.sampled_from(["kid", "precision", "wavelet", "mine"]),
        st.dictionaries(words, scalars, max_size=2),
        max_size=2,
    ),
)
# An unknown metric, extractor, family or path is named itself.
NAMED = {"metrics": ("etric",), "extractors": ("xtractor", "etric"), "monitor": ("direction of",)}
KINDS = [
    (QualityMonitor, {"metrics": METRICS}, MONITOR_RULES),
    (QualityStopping, {"monitor": "quality/fid"}, STOPPING_RULES),
    (QualityCheckpoint, {"monitor": "quality/fid"}, CHECKPOINT_RULES),
]


@fuzz(250)
@given(kind=st.sampled_from(KINDS), data=st.data(), value=junk)
def test_arguments_of_the_callbacks(kind, data, value):
    make, valid, rules = kind
    name = data.draw(st.sampled_from(sorted(rules)))
    made = outcome(lambda: make(**{**valid, name: value}), f"`{name}", f"{name}=", *NAMED.get(name, ()))
    assert made is None or isinstance(made, make)


_EVALUATE = {
    **SHARED_RULES,
    "fake": None,
    "device": None,
    "num_samples": None,
    "sampler": None,
    "labels": None,
    "precision": None,
    "skip_unreadable": None,
}
ARGUMENTS = sorted(set(_EVALUATE) - {"cache_dir", "weights_dir"})  # which would make folders


@fuzz(150)
@given(name=st.sampled_from(ARGUMENTS), value=junk)
def test_arguments_of_evaluate(name, value, tmp_path):
    valid = {
        "real": TensorDataset(images()),
        "fake": TensorDataset(images(seed=1)),
        "metrics": METRICS,
        "device": "cpu",
    }
    named = {**NAMED, "real": ("`held_out`",), "num_real": ("`real`",)}.get(name, ())
    found = outcome(
        lambda: evaluate(**{**valid, "cache_dir": tmp_path / "cache", name: value}),
        f"`{name}",
        f"{name}=",
        f"`{value}`",
        *named,
    )
    assert found is None or all(map(np.isfinite, found.scalars.values()))


MODES = (
    "1",
    "L",
    "P",
    "RGB",
    "RGBA",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I",
    "F",
    "LA",
    "PA",
    "I;16",
    "RGBX",
    "RGBa",
    "La",
)
sizes = st.lists(st.integers(0, 9), max_size=5).map(tuple)
integers = ("uint8", "int8", "uint16", "int16", "int32", "uint32", "int64", "uint64")
dtypes = st.sampled_from((*integers, "float16", "float32", "float64", "bool", "complex64", "object", "U3"))


@st.composite
def arrays(draw: Any) -> np.ndarray:
    shape = draw(st.one_of(sizes, st.sampled_from([(8, 8), (8, 8, 3), (8, 8, 1), (3, 8, 8), (8, 8, 4), (1, 1, 3)])))
    fill = draw(st.sampled_from([0, 1, 0.5, 200, 70000, -1, float("nan"), float("inf")]))
    with np.errstate(all="ignore"):
        return np.full(shape, fill).astype(draw(dtypes))


@st.composite
def tensors(draw: Any, lead: int | None = None) -> Tensor:
    shape = draw(st.one_of(sizes, st.sampled_from([(3, 8, 8), (1, 8, 8), (4, 8, 8), (8, 8, 3), (3, 1, 1)])))
    shape = shape if lead is None else (draw(st.sampled_from([lead, lead, lead, 1, 7])), *shape)
    kind = draw(
        st.sampled_from(
            [
                torch.uint8,
                torch.int64,
                torch.int16,
                torch.float32,
                torch.float16,
                torch.bfloat16,
                torch.bool,
                torch.complex64,
            ]
        )
    )
    fill = draw(st.sampled_from([0, 1, 0.5, 3, -1, 200, float("nan"), float("inf")]))
    values = torch.full(shape, fill, dtype=torch.float32)
    values = values.nan_to_num(0, 0, 0) if not kind.is_floating_point else values
    values = values.to(kind)
    return draw(
        st.sampled_from(
            [values, values.to_sparse() if values.numel() else values, values.requires_grad_(kind.is_floating_point)]
        )
    )


pictures = st.builds(Image.new, st.sampled_from(MODES), st.tuples(st.integers(0, 9), st.integers(0, 9)))
image_like = st.one_of(arrays(), tensors(), pictures, scalars)
items = st.one_of(
    image_like,
    st.tuples(image_like, st.integers()),
    st.dictionaries(st.sampled_from(["image", "img", "jpg", "x"]), image_like, max_size=2),
    st.lists(image_like, max_size=2),
)


@fuzz(200)
@given(item=items, role=st.sampled_from(["real", "fake"]), rest=st.booleans())
def test_items_of_data(item, role, rest, tmp_path):
    whole = [(image,) for image in images()]
    given_items = Items([item, *whole] if rest else [item] * 6)
    sets = {"real": TensorDataset(images()), "fake": TensorDataset(images(seed=1)), role: given_items}
    found = outcome(lambda: evaluate(**sets, metrics=METRICS, cache_dir=tmp_path, device="cpu"), f"`{role}`")
    assert found is None or all(map(np.isfinite, found.scalars.values()))


@fuzz(200)
@given(output=st.one_of(tensors(6), arrays(), junk, st.lists(tensors(), max_size=2)))
def test_outputs_of_samplers(output, tmp_path):
    arguments = {"sampler": lambda module, n, generator: output, "num_samples": 6, "batch_size": 6}
    found = outcome(
        lambda: evaluate(
            TensorDataset(images()), nn.Identity(), **arguments, metrics=METRICS, cache_dir=tmp_path, device="cpu"
        ),
        "the sampler",
    )
    assert found is None or all(map(np.isfinite, found.scalars.values()))


@st.composite
def mutations(draw: Any) -> Any:
    """A function that damages the content of a file."""
    place, kind = draw(st.floats(0, 1)), draw(st.sampled_from(["cut", "flip", "insert", "zero", "replace"]))
    extra = draw(st.binary(min_size=1, max_size=8))

    def damage(content: bytes) -> bytes:
        at = int(place * len(content))
        head, tail = content[:at], content[at:]
        changed = {
            "cut": head,
            "flip": head + bytes([tail[0] ^ extra[0]]) + tail[1:] if tail else head,
            "insert": head + extra + tail,
            "zero": head + bytes(min(8, len(tail))) + tail[8:],
            "replace": extra,
        }
        return changed[kind]

    return damage


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """A folder of images, and arrays, that are whole."""
    folder = tmp_path_factory.mktemp("files")
    array = images().permute(0, 2, 3, 1).numpy()
    np.save(folder / "whole.npy", array)
    np.savez(folder / "whole.npz", images=array)
    np.savez_compressed(folder / "packed.npz", images=array)
    for suffix in ("png", "jpg", "tif", "webp"):
        (folder / suffix).mkdir()
        for index, image in enumerate(array):
            Image.fromarray(image).save(folder / suffix / f"{index}.{suffix}")
    return {path.name: path for path in folder.iterdir()}


@fuzz(100)
@given(name=st.sampled_from(["whole.npy", "whole.npz", "packed.npz", "png", "jpg", "tif", "webp"]), damage=mutations())
def test_damaged_images(files, name, damage, tmp_path):
    whole = files[name]
    if whole.is_dir():
        source = tmp_path / name
        source.mkdir(exist_ok=True)
        for path in whole.iterdir():
            (source / path.name).write_bytes(path.read_bytes())
        first = source / f"0.{name}"
        first.write_bytes(damage(first.read_bytes()))
    else:
        source = tmp_path / f"damaged{whole.suffix}"
        source.write_bytes(damage(whole.read_bytes()))
    found = outcome(
        lambda: evaluate(source, TensorDataset(images()), metrics=METRICS, cache_dir=tmp_path / "cache", device="cpu"),
        "`real`",
        str(source),
    )
    assert found is None or all(map(np.isfinite, found.scalars.values()))


@fuzz(15)
@given(damage=mutations(), file=st.integers(0, 1))
def test_damaged_caches(damage, file, tmp_path):
    """A damaged cache is computed again, unless nothing of what is read was damaged."""
    sets = TensorDataset(images()), TensorDataset(images(seed=1))
    cache = tmp_path / "cache"
    expected = evaluate(*sets, metrics=METRICS, cache_dir=cache, device="cpu").scalars
    paths = sorted(cache.glob("*.safetensors"))  # features, and what a metric has prepared of them
    assert len(paths) == 2
    path = paths[file]
    content = path.read_bytes()
    try:
        path.write_bytes(damage(content))
        found = evaluate(*sets, metrics=METRICS, cache_dir=cache, device="cpu").scalars
    finally:
        for each in paths:
            each.unlink()
    assert set(found) == set(expected)
    assert all(map(np.isfinite, found.values()))


ROW = Report({"fd_wavelet": 1.5}, {"seed": 0, "metrics": {"fd_wavelet": {"family": "fid"}}}, step=3, epoch=0).to_json()


@fuzz(60)
@given(damage=mutations(), command=st.sampled_from(["compare", "plot"]))
def test_damaged_reports(damage, command, tmp_path, capsys):
    path = tmp_path / "reports.jsonl"
    path.write_bytes(damage(f"{ROW}\n{ROW.replace('1.5', '2.5')}\n".encode()))
    output = ["--output", str(tmp_path / "curves.png")] if command == "plot" else []
    code = main([command, str(path), *output])
    told = capsys.readouterr().err.strip()
    assert code in (0, 2)
    assert code == 0 or (told.count("\n") == 0 and str(path) in told), told


@fuzz(100)
@given(
    row=st.recursive(
        scalars.filter(lambda value: value is None or isinstance(value, int | float | str)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(
                st.sampled_from(["schema", "step", "epoch", "scalars", "protocol", "timings", "metrics", "fd_wavelet"]),
                inner,
                max_size=6,
            ),
        ),
        max_leaves=8,
    ),
    command=st.sampled_from(["compare", "plot"]),
)
def test_rows_of_other_forms(row, command, tmp_path, capsys):
    path = tmp_path / "reports.jsonl"
    sys.set_int_max_str_digits(0)
    text = json.dumps({**json.loads(ROW), **row} if isinstance(row, dict) else row)
    path.write_text(f"{text}\n{ROW}\n")
    output = ["--output", str(tmp_path / "curves.png")] if command == "plot" else []
    code = main([command, str(path), *output])
    told = capsys.readouterr().err.strip()
    assert code in (0, 2)
    assert code == 0 or (told.count("\n") == 0 and str(path) in told), told
