"""Whether matrix products run in bfloat16, and what becomes of `bf16` on hardware without it.

In: the precision asked for, a device. Out: yes or no; a refusal for a run, a line of text for a bundle. Not here: the
products themselves (build.py, modeling/cpu_scoring.py).

The rule: `auto` takes bf16 where the hardware multiplies it. An explicit `bf16` also runs where it is emulated, at a
fifth to a half of fp32's speed. Where oneDNN takes no bf16 (x86 before AVX-512), PyTorch falls back to plain loops, 24
times slower than fp32: a run is refused, and a bundle scores in fp32, whose scores are the more exact ones.
"""

from typing import Literal

import torch

from textcls.errors import RecipeError

# What multiplies bf16 on a CPU, as `torch.cpu.get_capabilities` names it: Intel, Intel and AMD, ARM.
_CPU_BF16_UNITS = ("amx_bf16", "avx512_bf16", "bf16")

Bf16 = Literal["hardware", "emulated", "none"]


def bf16_support(device: torch.device) -> Bf16:
    """How matrix products in bfloat16 run there: multiplied by the hardware, emulated, or by no kernel worth using."""
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "hardware"
        return "emulated" if torch.cuda.is_bf16_supported() else "none"
    # oneDNN is asked first: a limit on it (ONEDNN_MAX_CPU_ISA) counts for it alone.
    if not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():  # type: ignore[no-untyped-call]
        return "none"
    can = torch.cpu.get_capabilities()
    return "hardware" if any(can.get(unit, False) for unit in _CPU_BF16_UNITS) else "emulated"


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Whether matrix products run in bfloat16 there, given `auto`, `fp32` or `bf16`."""
    if precision == "fp32":
        return False
    support = bf16_support(device)
    return support == "hardware" or (precision == "bf16" and support == "emulated")


def refuse_bf16_without_support(precision: str, support: Bf16, where: str = "this processor") -> None:
    """Refuses a run that asks for bfloat16 on hardware that has none.

    Raises:
        RecipeError: it does.
    """
    if precision == "bf16" and support == "none":
        raise RecipeError(
            f"train.precision is bf16, and {where} cannot multiply bfloat16",
            expected="AVX-512, AMX or ARM's bf16 instructions, or a GPU",
            todo="--set train.precision=auto, which is fp32 here; resume a run that began in bf16 where it began",
        )


def fp32_note(precision: str, used: str) -> str | None:
    """A line for the user, if bf16 was asked for and fp32 is used."""
    if precision != "bf16" or used == "bf16":
        return None
    return "bf16 was asked for, but the processor cannot multiply bfloat16: scoring in fp32"
