"""Decides whether matrix products run in bfloat16, and handles `bf16` on hardware without it.

In: the requested precision, a device. Out: yes or no; an error for a training run, a line of text for a bundle.
Not here: the matrix products themselves (build.py, cpu_layers.py).

`auto` uses bf16 where the hardware multiplies it. An explicit `bf16` also runs where it is emulated, at a fifth to a
half of fp32's speed. Where oneDNN does not support bf16 (x86 before AVX-512), PyTorch falls back to plain loops that
are 24 times slower than fp32: a training run is refused, and a bundle scores in fp32, which is more precise.
"""

from typing import Literal

import torch

from textcls.errors import RecipeError

# CPU features that multiply bf16, as `torch.cpu.get_capabilities` names them: Intel; Intel and AMD; ARM.
_CPU_BF16_UNITS = ("amx_bf16", "avx512_bf16", "bf16")

Bf16 = Literal["hardware", "emulated", "none"]


def bf16_support(device: torch.device) -> Bf16:
    """How a device runs matrix products in bfloat16: in hardware, emulated, or without a usable kernel."""
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "hardware"
        return "emulated" if torch.cuda.is_bf16_supported() else "none"
    # oneDNN is asked first, because ONEDNN_MAX_CPU_ISA limits oneDNN alone.
    if not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():  # type: ignore[no-untyped-call]
        return "none"
    can = torch.cpu.get_capabilities()
    return "hardware" if any(can.get(unit, False) for unit in _CPU_BF16_UNITS) else "emulated"


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Whether matrix products run in bfloat16 on a device, for a precision of `auto`, `fp32` or `bf16`."""
    if precision == "fp32":
        return False
    support = bf16_support(device)
    return support == "hardware" or (precision == "bf16" and support == "emulated")


def refuse_bf16_without_support(precision: str, support: Bf16, where: str = "this processor") -> None:
    """Refuses a training run in bfloat16 on hardware that cannot multiply it.

    Raises:
        RecipeError: the precision is bf16, and `support` is none.
    """
    if precision == "bf16" and support == "none":
        raise RecipeError(
            f"train.precision is bf16, and {where} cannot multiply bfloat16",
            expected="AVX-512, AMX or ARM's bf16 instructions, or a GPU",
            todo="--set train.precision=auto, which is fp32 here; resume a bf16 run on hardware with bf16",
        )


def fp32_note(precision: str, used: str) -> str | None:
    """A line for the user if bf16 was requested and fp32 is used; else None."""
    if precision != "bf16" or used == "bf16":
        return None
    return "bf16 was requested, but the processor cannot multiply bfloat16: scoring in fp32"
