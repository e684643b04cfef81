"""The precision of float32 work, whatever the training chose for itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def full_precision() -> Iterator[None]:
    """Keep float32 products and convolutions in float32, whatever the training chose for itself."""
    settings = _precision_settings()
    before = [setting.fp32_precision for setting in settings]
    older = _older_settings()
    if older is not None:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
    for setting in settings:
        if setting.fp32_precision not in ("none", "ieee"):
            setting.fp32_precision = "ieee"
    try:
        yield
    finally:
        if older is not None:
            torch.set_float32_matmul_precision(older[0])
            torch.backends.cudnn.allow_tf32 = older[1]
        for setting, value in zip(settings, before, strict=True):
            setting.fp32_precision = value


def _precision_settings() -> list[Any]:
    """Where newer versions of torch hold the precision of float32 work; none in older ones."""
    cuda, cudnn, mkldnn = torch.backends.cuda, torch.backends.cudnn, torch.backends.mkldnn
    places = ((cuda, "matmul"), (cudnn, "conv"), (cudnn, "rnn"), (mkldnn, "matmul"), (mkldnn, "conv"), (mkldnn, "rnn"))
    settings = [getattr(backend, name, None) for backend, name in places]
    return settings if all(hasattr(setting, "fp32_precision") for setting in settings) else []


def _older_settings() -> tuple[str, bool] | None:
    """Precision of products and whether cuDNN may use TF32; torch refuses to say once the newer settings are in use."""
    try:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    except RuntimeError:
        return None


PRECISIONS = {
    "32-true": None,
    "16-mixed": torch.float16,
    "bf16-mixed": torch.bfloat16,
    "16-true": torch.float16,
    "bf16-true": torch.bfloat16,
    "64-true": torch.float64,
}


@contextmanager
def in_precision(module: nn.Module, precision: str) -> Iterator[None]:
    """Run a module as a Lightning trainer of this ``precision`` runs it in validation.

    Args:
        module: The module; a ``-true`` precision converts its floating point weights, which are put back afterwards.
        precision: A key of ``PRECISIONS``.
    """
    dtype, device = PRECISIONS[precision], next((p.device.type for p in module.parameters()), "cpu")
    if dtype is None:
        yield
    elif precision.endswith("-mixed"):
        with torch.autocast(device, dtype=dtype):
            yield
    else:
        with _converted(module, dtype):
            yield


@contextmanager
def _converted(module: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    tensors = [each for each in (*module.parameters(), *module.buffers()) if each.is_floating_point()]
    before, default = [each.data for each in tensors], torch.get_default_dtype()
    try:
        for tensor in tensors:
            tensor.data = tensor.data.to(dtype)
        torch.set_default_dtype(dtype)
        yield
    finally:
        torch.set_default_dtype(default)
        for tensor, data in zip(tensors, before, strict=True):
            tensor.data = data
