"""8- and 4-bit weights: int8 by rows (LLM.int8, arXiv:2208.07339) and NF4 (QLoRA, arXiv:2305.14314).

Weights are quantized one by one while transformers reads them, so that a model never lies in memory in full precision.
On a GPU bitsandbytes keeps and multiplies them; on a CPU it does so for nf4, and :mod:`far_node.blocks.int8` for int8.
Norms, routers, convolutions and whatever else is no matrix of a decoder layer stay as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.core_model_loading import ConversionOps
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.auto import register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from discovery.protocol.announcement import Quantization
from far_node.blocks.cut import find_stack
from far_node.blocks.experts import expert_shape, expert_weights, quantize_experts
from far_node.blocks.int8 import Int8Linear, packed_bytes
from far_node.blocks.memory import return_freed_memory

# on a CPU bitsandbytes reports that a package of kernels is missing, which it would download
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

Shape = tuple[int, int]
"""``(outputs, inputs)`` of a matrix."""

_METHOD = "far-mesh"
_LINEAR = {"Linear", "Conv1D", "FalconLinear"}
_ROUTERS = {"gate", "router", "router_gate", "shared_expert_gate"}
_USED_DIRECTLY = {"dt_proj"}  # Mamba's, whose weight is multiplied outside of its module
_NF4_BLOCK = 64
_NF4_FUSED_ROWS = 32
_VALUES_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Target:
    """A parameter to be quantized: its full name, and the matrices in it, which are all of one shape."""

    name: str
    shape: Shape
    count: int = 1


def targets(model: PreTrainedModel, kind: Quantization) -> Iterator[Target]:
    """The matrices in a model's decoder layers that can be of a kind, fused experts among them."""
    layers = find_stack(model).layers
    prefix = next(path for path, module in model.named_modules() if module is layers)
    in_full = {*(model._keep_in_fp32_modules or ()), *(model._keep_in_fp32_modules_strict or ())}
    for path, module in layers.named_modules(prefix=prefix):
        if (_ROUTERS | _USED_DIRECTLY | in_full).isdisjoint(path.removeprefix(prefix).split(".")):
            yield from (target for target in _matrices(path, module) if _suits(kind, target.shape))


def _matrices(path: str, module: nn.Module) -> Iterator[Target]:
    if type(module).__name__ in _LINEAR:  # not what is more than that: it may use its weight in its own way
        assert isinstance(module.weight, Tensor)
        rows, columns = module.weight.shape
        yield Target(f"{path}.weight", (columns, rows) if isinstance(module, Conv1D) else (rows, columns))
    for name in expert_weights(module):
        yield Target(f"{path}.{name}", *expert_shape(module, name))


def _has_fused_nf4(rows: int) -> bool:
    """Whether this CPU multiplies NF4 as it is; bitsandbytes would try it for other row counts too, and fail."""
    from bitsandbytes.functional import has_avx512bf16

    return bool(has_avx512bf16()) and rows % _NF4_FUSED_ROWS == 0


def _suits(kind: Quantization, shape: Shape) -> bool:
    """bitsandbytes gives wrong values on a CPU where its blocks go over the ends of rows."""
    return kind == "int8" or (kind == "nf4" and shape[1] % _NF4_BLOCK == 0)


def matrix_bytes(shape: Shape, kind: Quantization, device: str) -> int:
    """What a matrix takes when it is quantized, scales and padding included."""
    rows, columns = shape
    if kind == "nf4":
        scale = 2 if device == "cpu" and _has_fused_nf4(rows) else 4
        return rows * columns // 2 + rows * columns // _NF4_BLOCK * scale
    if device != "cpu":
        return rows * columns + 4 * rows
    return packed_bytes(rows, columns) + 4 * rows


class WeightsConfig(QuantizationConfigMixin):
    """For ``from_pretrained(quantization_config=…)``: quantize each weight as soon as it is read."""

    def __init__(self, kind: Quantization) -> None:
        self.quant_method = _METHOD
        self.kind = kind


@register_quantizer(_METHOD)
class _Quantizer(HfQuantizer):
    """What transformers asks while it loads: which parameters, and what is to be done with their values."""

    requires_calibration = False
    is_trainable = False

    @property
    def quantized_element_size(self) -> float:
        return 1.0 if self.quantization_config.kind == "int8" else 0.5

    def _process_model_before_weight_loading(self, model: PreTrainedModel, **_: Any) -> None:
        self._names = {target.name for target in targets(model, self.quantization_config.kind)}

    def param_needs_quantization(self, model: PreTrainedModel, param_name: str, **_: Any) -> bool:
        return param_name in self._names

    def get_quantize_ops(self) -> ConversionOps:
        return _Quantize(self.quantization_config.kind, self._names)

    def is_serializable(self) -> bool:
        return False


class _Quantize(ConversionOps):
    def __init__(self, kind: Quantization, names: set[str]) -> None:
        self._kind, self._names = kind, names

    def convert(
        self, input_dict: dict[str, Any], *, model: PreTrainedModel, missing_keys: set[str], **_: Any
    ) -> dict[str, Any]:
        """Put the quantized values where they belong; transformers is left with those that stay as they are."""
        values = {name: value[0] if isinstance(value, list) else value for name, value in input_dict.items()}
        for name in self._names & values.keys():
            _quantize_parameter(model, name, values.pop(name), self._kind)
            missing_keys.discard(name)
            return_freed_memory()
        return values


def finish_quantizing(model: PreTrainedModel, kind: Quantization) -> int:
    """Quantize what a loaded model still has in full precision, and let it count rightly what it holds.

    Returns:
        How many parameters were still to be quantized.
    """
    left = list(targets(model, kind))
    for target in left:
        _quantize_parameter(model, target.name, model.get_parameter(target.name).detach(), kind)
    model.is_loaded_in_4bit = kind == "nf4"  # so that num_parameters counts both values of a byte
    if not any(parameter.is_floating_point() for parameter in model.parameters()):
        # OLMo's norms have no weights; by this one the model knows its type
        model.register_parameter("computes_in", nn.Parameter(torch.empty(0, dtype=model.config.dtype)))
    # what the packed layout of int8 adds is in no tensor's shape
    footprint = type(model).get_memory_footprint(model) + sum(
        module.padding_bytes() for module in model.modules() if isinstance(module, Int8Linear)
    )
    model.get_memory_footprint = lambda return_buffers=True: footprint
    return len(left)


def _quantize_parameter(model: PreTrainedModel, name: str, value: Tensor, kind: Quantization) -> None:
    path, _, attribute = name.rpartition(".")
    module = model.get_submodule(path)
    if type(module).__name__ in _LINEAR:
        matrix = value.t() if isinstance(module, Conv1D) else value  # GPT-2's, which keeps (inputs, outputs)
        model.set_submodule(path, _linear(kind, matrix, cast("nn.Parameter | None", module.bias)))
    else:
        quantize_experts(module, attribute, value, partial(_linear, kind))


def _linear(kind: Quantization, weight: Tensor, bias: nn.Parameter | None = None) -> nn.Module:
    module: Any
    if kind == "nf4":
        module = nf4_linear(weight, bias)
    else:
        module = gpu_int8_linear(weight, bias) if weight.device.type == "cuda" else Int8Linear(weight, bias)
    # or transformers draws random numbers for what it did not set itself
    module._is_hf_initialized = module.weight._is_hf_initialized = True
    return module


def gpu_int8_linear(weight: Tensor, bias: nn.Parameter | None = None) -> nn.Module:
    """A linear map as bitsandbytes multiplies it on a GPU, weights and rows of activations in 8 bits."""
    import bitsandbytes

    outputs, inputs = weight.shape
    with torch.device("meta"):
        # no threshold: the columns that LLM.int8 sets aside would depend on all rows of a batch
        module = bitsandbytes.nn.Linear8bitLt(inputs, outputs, bias=False, has_fp16_weights=False, threshold=0.0)
    # it quantizes on its way from the CPU to a device
    module.weight = bitsandbytes.nn.Int8Params(weight.cpu(), requires_grad=False, has_fp16_weights=False).to(
        weight.device
    )
    module.bias = bias
    module.register_buffer("scale", module.weight.SCB, persistent=False)  # the same tensor, where it is counted
    return module.eval()


def _nf4_codes(weight: Tensor) -> tuple[Tensor, Any]:
    """Packed 4-bit codes of a matrix and bitsandbytes' account of them. It takes 20 bytes for each value it works on,
    so it is given few rows at a time, which is as good: its blocks do not go over the ends of rows.
    """
    from bitsandbytes.functional import quantize_4bit

    at_once = max(1, _VALUES_AT_ONCE // weight.shape[1])
    parts = [
        quantize_4bit(part.contiguous(), blocksize=_NF4_BLOCK, quant_type="nf4")
        for part in torch.split(weight, at_once)
    ]
    state = parts[0][1]
    state.absmax = torch.cat([of_part.absmax for _, of_part in parts])
    state.shape = weight.shape
    return torch.cat([codes for codes, _ in parts]), state


def nf4_linear(weight: Tensor, bias: nn.Parameter | None = None) -> nn.Module:
    """A linear map with weights in NF4, in blocks of 64 with a scale each."""
    import bitsandbytes  # here, for most nodes on a CPU need none of it

    outputs, inputs = weight.shape
    with torch.device("meta"):
        module = bitsandbytes.nn.Linear4bit(
            inputs, outputs, bias=False, compute_dtype=weight.dtype, compress_statistics=False, quant_type="nf4"
        )
    codes, module.quant_state = _nf4_codes(weight)
    module.weight = bitsandbytes.nn.Params4bit(
        codes,
        requires_grad=False,
        quant_state=module.quant_state,
        compress_statistics=False,
        quant_type="nf4",
        blocksize=_NF4_BLOCK,
        module=module,
        bnb_quantized=True,
    )
    module.eval()
    module.support_avx512bf16_for_cpu = _has_fused_nf4(outputs)
    if module.support_avx512bf16_for_cpu:  # that kernel reads a transposed input as if it were not (Mamba's)
        module.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))
    module(weight.new_zeros(1, inputs))  # on a CPU its first call may change the layout
    module.bias = bias
    module.register_buffer("absmax", module.weight.quant_state.absmax, persistent=False)  # where it is counted
    return module
