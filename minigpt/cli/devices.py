"""What --device and --dtype mean on this machine."""

import torch

from minigpt.edge.errors import InputError
from minigpt.fast.int8 import check_int8


def device_of(name: str) -> str:
    """Return the device that `--device` means; raise InputError for one that is not available."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.mps.is_available()}
    if name == "auto":
        return next(device for device in ("cuda", "mps", "cpu") if available[device])
    if not available.get(name):
        missing = "this machine or this build of torch has none"
        why = missing if name in available else "it can be auto, cpu, cuda or mps"
        raise InputError(f"--device {name}: {why}")
    return name


def dtype_of(name: str, device: str) -> str:
    """Return what `--dtype` means on a device: auto is bfloat16 on GPUs that have it.

    Raises InputError for int8 where there is none.
    """
    if name == "auto":
        return "bfloat16" if device == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    if name == "int8":
        check_int8(device)
    return name
