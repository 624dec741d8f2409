"""Where bfloat16 is used, and what becomes of `bf16` on hardware without it: the same on every kind of processor."""

from typing import Any

import pytest
import torch

from textcls.errors import RecipeError
from textcls.modeling import precision
from textcls.modeling.precision import bf16_support, fp32_note, refuse_bf16_without_support, uses_bf16

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def processor(monkeypatch: pytest.MonkeyPatch, *, onednn: bool, **units: bool) -> None:
    """A processor on which oneDNN takes bfloat16 or not, with these units."""
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, **units})


@pytest.mark.parametrize("unit", ["amx_bf16", "avx512_bf16", "bf16"])
def test_a_unit_that_multiplies_bf16_is_used_by_auto(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    processor(monkeypatch, onednn=True, **{unit: True})
    assert bf16_support(CPU) == "hardware"
    assert [uses_bf16(asked, CPU) for asked in ("auto", "bf16", "fp32")] == [True, True, False]


def test_what_is_emulated_is_used_only_if_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    processor(monkeypatch, onednn=True, avx512_f=True, avx512_bw=True, amx_bf16=False)
    assert bf16_support(CPU) == "emulated"
    assert [uses_bf16(asked, CPU) for asked in ("auto", "bf16", "fp32")] == [False, True, False]


@pytest.mark.parametrize("units", [{}, {"avx512_bf16": True}], ids=["AVX2", "oneDNN kept to AVX2"])
def test_where_onednn_takes_no_bf16_fp32_is_used(units: dict[str, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    processor(monkeypatch, onednn=False, **units)
    assert bf16_support(CPU) == "none"
    assert not any(uses_bf16(asked, CPU) for asked in ("auto", "bf16", "fp32"))


def test_without_onednn_nothing_else_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.setattr(torch.ops, "mkldnn", None)  # as in builds of PyTorch for macOS
    assert bf16_support(CPU) == "none"


@pytest.mark.parametrize(("real", "any_way", "support"), [(1, 1, "hardware"), (0, 1, "emulated"), (0, 0, "none")])
def test_a_gpu_is_asked_itself(real: bool, any_way: bool, support: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def is_bf16_supported(including_emulation: bool = True) -> bool:
        return bool(any_way if including_emulation else real)

    processor(monkeypatch, onednn=True, amx_bf16=True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_bf16_supported)
    assert bf16_support(GPU) == support


def test_this_processor_can_do_what_it_is_said_to() -> None:
    weight = torch.eye(64, dtype=torch.bfloat16)
    if bf16_support(CPU) == "none":
        with pytest.raises(RuntimeError):
            torch.ops.mkldnn._reorder_linear_weight(weight)
    else:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        found = torch.ops.mkldnn._linear_pointwise(weight, packed, None, "none", [], "")
        torch.testing.assert_close(found, weight)


@pytest.mark.parametrize("asked", ["auto", "fp32", "bf16"])
@pytest.mark.parametrize("support", ["hardware", "emulated", "none"])
def test_a_run_is_refused_only_for_bf16_that_no_kernel_multiplies(asked: Any, support: Any) -> None:
    if (asked, support) != ("bf16", "none"):
        refuse_bf16_without_support(asked, support)
        return
    with pytest.raises(RecipeError, match=r"node 10\.0\.0\.7 cannot multiply bfloat16") as refused:
        refuse_bf16_without_support(asked, support, "the processor of node 10.0.0.7")
    assert "--set train.precision=auto" in refused.value.todo


def test_a_note_says_that_fp32_stands_in_for_bf16_and_nothing_else() -> None:
    assert "fp32" in str(fp32_note("bf16", "fp32"))
    assert [fp32_note("bf16", "bf16"), fp32_note("auto", "fp32"), fp32_note("fp32", "fp32")] == [None] * 3


def test_every_todo_s_setting_is_accepted_where_bf16_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "bf16_support", lambda device: "none")
    refuse_bf16_without_support("auto", precision.bf16_support(CPU))
    assert not uses_bf16("auto", CPU)
