"""The precision of float32 work, whatever the training chose for itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

NETWORK_PRECISIONS = ("float32", "tf32", "bfloat16")


def check_network_precision(precision: str, device: torch.device | str | None = None) -> None:
    """Raise if a network cannot compute in a precision.

    Args:
        precision: ``"float32"``, ``"tf32"`` (products of 10 bits on newer NVIDIA GPUs) or ``"bfloat16"`` (autocast).
        device: The device; ``None``: any that has it.

    Raises:
        ValueError: If the precision is unknown, or the device does not have it.
    """
    if precision not in NETWORK_PRECISIONS:
        raise ValueError(f"`precision` must be 'float32', 'tf32' or 'bfloat16', but got {precision!r}.")
    if precision == "tf32" and device is not None and not has_tf32(torch.device(device)):
        raise ValueError(
            "`precision='tf32'` needs an NVIDIA GPU of compute capability 8.0 or more, but the network is on "
            f"{device}. Use 'float32' or 'bfloat16'."
        )


def has_tf32(device: torch.device) -> bool:
    """Whether a device multiplies in TF32."""
    nvidia = device.type == "cuda" and torch.version.hip is None
    return nvidia and torch.cuda.is_available() and torch.cuda.get_device_capability(device)[0] >= 8


@contextmanager
def network_precision(precision: str, device: torch.device) -> Iterator[None]:
    """Let networks compute in a precision of ``NETWORK_PRECISIONS``, whatever the training chose for itself.

    Raises:
        ValueError: If the precision is unknown, or the device does not have it.
    """
    check_network_precision(precision, device)
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")
    with _float32_work(tf32=precision == "tf32"), autocast:
        yield


@contextmanager
def full_precision() -> Iterator[None]:
    """Keep float32 products and convolutions in float32, whatever the training chose for itself."""
    with _float32_work(tf32=False):
        yield


@contextmanager
def _float32_work(tf32: bool) -> Iterator[None]:
    settings = _precision_settings()
    before = [setting.fp32_precision for setting in settings]
    older = _older_settings()
    if older is not None:
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32
    for setting in settings:
        wanted = "tf32" if tf32 and setting in _of_cuda() else "ieee"
        if setting.fp32_precision not in (wanted, "none") or wanted == "tf32":
            setting.fp32_precision = wanted
    try:
        yield
    finally:
        if older is not None:
            torch.set_float32_matmul_precision(older[0])
            torch.backends.cudnn.allow_tf32 = older[1]
        for setting, value in zip(settings, before, strict=True):
            setting.fp32_precision = value


@contextmanager
def untried_convolutions() -> Iterator[None]:
    """Keep cuDNN from trying all its algorithms at each new size of a batch, whatever the training chose."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _precision_settings() -> list[Any]:
    """Where newer versions of torch hold the precision of float32 work; none in older ones."""
    mkldnn = torch.backends.mkldnn
    settings = [*_of_cuda(), *(getattr(mkldnn, name, None) for name in ("matmul", "conv", "rnn"))]
    return settings if all(hasattr(setting, "fp32_precision") for setting in settings) else []


def _of_cuda() -> list[Any]:
    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    return [getattr(backend, name, None) for backend, name in ((cuda, "matmul"), (cudnn, "conv"), (cudnn, "rnn"))]


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
