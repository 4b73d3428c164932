"""What blocks take in memory in each kind of weights, told from the config alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from discovery.protocol.announcement import Dtype, Quantization
from far_node.blocks.cut import find_stack, read_config
from far_node.blocks.quantize import matrix_bytes, targets
from far_node.blocks.source import ModelSource
from far_node.blocks.wire import TORCH_DTYPES
from far_node.errors import ModelUnsupported

_CANNOT_BUILD = (AttributeError, TypeError, ValueError, KeyError, RuntimeError, NotImplementedError, ImportError)


def block_sizes(
    source: ModelSource, quantization: Quantization, dtype: Dtype = "float32", device: str = "cpu"
) -> tuple[int, ...]:
    """Bytes that the weights and buffers of every block of a model take. No weight is read.

    Raises:
        ModelUnsupported: the config is unreadable, or no model can be made of it.
    """
    config = read_config(source)
    try:
        with torch.device("meta"):
            model: PreTrainedModel = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config)
        return tuple(_layer_bytes(model, TORCH_DTYPES[dtype], quantization, device))
    except _CANNOT_BUILD as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelUnsupported(f"{source.id} ({config.model_type}) cannot be built: {reason}") from error


def _layer_bytes(model: PreTrainedModel, dtype: torch.dtype, kind: Quantization, device: str) -> list[int]:
    quantized = {
        id(model.get_parameter(target.name)): target.count * matrix_bytes(target.shape, kind, device)
        for target in targets(model, kind)
    }
    return [_module_bytes(layer, quantized, dtype) for layer in find_stack(model).layers]


def _module_bytes(module: nn.Module, quantized: dict[int, int], dtype: torch.dtype) -> int:
    return sum(quantized.get(id(tensor)) or _bytes(tensor, dtype) for tensor in module.parameters()) + sum(
        _bytes(tensor, dtype) for tensor in module.buffers()
    )


def _bytes(tensor: Tensor, dtype: torch.dtype) -> int:
    return tensor.numel() * (dtype.itemsize if tensor.is_floating_point() else tensor.element_size())
