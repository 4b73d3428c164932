"""A tiny random model of every architecture with a causal language model head, and the table of how each bears the cut.

``python -m tests.support.architectures --write`` tries them all and writes the table in ``docs/models.md``.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import ModelOutput
from transformers.utils import logging as transformers_logging

from far_node.blocks.cut import read_config
from far_node.blocks.source import ModelSource, find_model
from far_node.errors import ModelUnsupported
from tests.support.models import whole_model
from tests.support.pieces import Pieces
from tests.support.together import error_together, unpacked

BLOCKS = 6
VOCABULARY = 128
PROMPT, STEPS = 12, 16  # positions at first, and one by one after them
TOLERANCE = 1e-4  # of the logits' largest magnitude
PAGE = Path(__file__).parents[2] / "docs" / "models.md"
_BEGIN, _END = "<!-- table: begin -->\n", "<!-- table: end -->\n"
_TOGETHER = "in one pass"
_BOUNDS = {0.0: "none", 1e-6: "≤ 1e-6", 1e-5: "≤ 1e-5", TOLERANCE: "≤ 1e-4"}

# By what names configs call their sizes. A config is given those that it knows, unless it has its own below.
_SMALL: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "emb_dim", "embedding_dim", "word_embed_proj_dim"), 64),
    **dict.fromkeys(("embedding_size", "input_embedding_size", "output_embedding_size", "lru_width"), 64),
    **dict.fromkeys(("intermediate_size", "intermediate_size_mlp", "dense_intermediate_size", "n_inner"), 96),
    **dict.fromkeys(("ffn_dim", "ffn_hidden_size", "encoder_ffn_dim", "decoder_ffn_dim", "dff", "d_inner"), 96),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer", "n_layers", "num_blocks"), BLOCKS),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "num_decoder_layers"), BLOCKS),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads", "swa_num_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "swa_num_key_value_heads"), 2),
    **dict.fromkeys(("num_global_key_value_heads", "linear_num_key_heads"), 2),
    **dict.fromkeys(("head_dim", "kv_channels", "global_head_dim", "swa_head_dim", "swa_v_head_dim"), 16),
    **dict.fromkeys(("attention_head_dim", "linear_key_head_dim", "linear_value_head_dim", "linear_head_dim"), 16),
    **dict.fromkeys(("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"), 16),
    **dict.fromkeys(("q_lora_rank", "mamba_head_dim", "mamba_d_head", "moe_intermediate_size"), 32),
    **dict.fromkeys(("shared_expert_intermediate_size", "shared_experts_intermediate_size"), 32),
    **dict.fromkeys(("moe_shared_expert_intermediate_size", "shared_intermediate_size"), 32),
    **dict.fromkeys(("expert_ffn_hidden_size",), 32),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len", "model_max_length"), 256),
    **dict.fromkeys(("original_max_position_embeddings", "max_target_positions"), 256),
    **dict.fromkeys(("sliding_window", "sliding_window_size", "attention_window_size", "window_size"), 8),
    **dict.fromkeys(("attention_chunk_size", "index_topk", "rotary_dim", "chunk_size", "mamba_chunk_size"), 8),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts"), 2),
    **dict.fromkeys(("n_shared_experts", "num_shared_experts", "moe_num_shared_experts"), 1),
    **dict.fromkeys(("n_group", "topk_group", "num_expert_group", "first_k_dense_replace"), 1),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads", "linear_num_value_heads", "linear_num_heads"), 4),
    **dict.fromkeys(("mamba_d_state", "ssm_state_size", "state_size", "index_head_dim"), 16),
    **dict.fromkeys(("n_groups", "mamba_n_groups"), 1),
    "vocab_size": VOCABULARY,
    "time_step_rank": 4,
    "mamba_dt_rank": 4,
    "index_n_heads": 2,
    "query_pre_attn_scalar": 16,
    "local_attention": 16,
    "hidden_size_per_layer_input": 0,
    "num_nextn_predict_layers": 0,
    "num_mtp_layers": 0,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
_GAIN = 2.5  # of the layers over the embeddings, so that what they do decides the tokens
_QUIET_GAIN = 0.4  # for those that normalise after each layer: with more of it they say one token for ever


@dataclass(frozen=True, eq=False)
class Architecture:
    """One row of the table: a model type of transformers, and what the tiny model of it has beyond the small sizes.

    ``unlike`` are settings that make another model of the same weights: if what is special about the architecture
    were ignored it would be that one, and the two must not say the same. ``for_more`` models are saved whole, with
    what they have for images.
    """

    model_type: str
    special: str = ""
    variant: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    unlike: Mapping[str, Any] = field(default_factory=dict)
    quiet: bool = False
    for_more: bool = False

    @property
    def name(self) -> str:
        """The name of its row and of its test."""
        return f"{self.model_type}, {self.variant}" if self.variant else self.model_type

    @property
    def class_name(self) -> str:
        """The class that transformers' AutoModelForCausalLM makes of it."""
        return str(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[self.model_type])

    def config(self) -> PreTrainedConfig:
        """The tiny config."""
        return _config(self.model_type, self.settings)


def _config(model_type: str, settings: Mapping[str, Any]) -> PreTrainedConfig:
    kind = CONFIG_MAPPING[model_type]
    known = set(inspect.signature(kind.__init__).parameters) | {item.name for item in dataclasses.fields(kind)}
    small = {name: value for name, value in _SMALL.items() if name in known}
    if "kv_lora_rank" in known:
        small["num_key_value_heads"] = small["num_attention_heads"]
    parts = {name: _config(part["model_type"], part) for name, part in settings.items() if _is_config(part)}
    return kind(**small | dict(settings) | parts)


def _is_config(value: object) -> bool:
    return isinstance(value, Mapping) and "model_type" in value


_HYBRID = ["linear_attention", "linear_attention", "full_attention"] * 2
_WINDOWS = ["sliding_attention", "sliding_attention", "full_attention"] * 2
_EYES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
_EARS = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
_QWEN_EYES = {"depth": 1, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 64}
_DOTS: dict[str, Any] = {
    "layer_types": ["indexed_attention", "indexed_attention", "sliding_attention"] * 2,
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 4,
    "swa_q_lora_rank": 32,
    "swa_kv_lora_rank": 16,
    "swa_head_dim": 32,
    "swa_qk_nope_head_dim": 16,
    "swa_v_head_dim": 16,
}


def _rope(kind: str, **settings: Any) -> dict[str, Any]:
    return {"rope_type": kind, "rope_theta": 10000.0} | settings


def _row(
    model_type: str,
    special: str = "",
    variant: str = "",
    *,
    unlike: Mapping[str, Any] | None = None,
    quiet: bool = False,
    for_more: bool = False,
    **settings: Any,
) -> Architecture:
    return Architecture(model_type, special, variant, settings, unlike or {}, quiet, for_more)


_DECODER = "decoder of an encoder and decoder, alone"
_BOTH_WAYS = "made for masked words; as a decoder"
_PER_LAYER: dict[str, Any] = {
    "layer_types": _WINDOWS,
    "hidden_size_per_layer_input": 16,
    "vocab_size_per_layer_input": VOCABULARY,
}

ARCHITECTURES = (
    _row("afmoe"),
    _row("apertus"),
    _row("arcee"),
    _row("aria_text"),
    _row("axk1"),
    _row("axk2"),
    _row("bailing_hybrid"),
    _row("bamba", attn_layer_indices=[2, 5]),
    _row("bart", _DECODER, quiet=True),
    _row("bart", f"{_DECODER}, with fewer layers than the encoder", "uneven", quiet=True, encoder_layers=8),
    _row("beam"),
    _row("bert", _BOTH_WAYS, quiet=True, is_decoder=True),
    _row("bert", "sees what follows", "encoder"),
    _row("bert-generation", _BOTH_WAYS, quiet=True, is_decoder=True),
    _row("big_bird", _BOTH_WAYS, quiet=True, is_decoder=True, attention_type="original_full"),
    _row("bigbird_pegasus", _DECODER, attention_type="original_full"),
    _row("biogpt", "learned positions"),
    _row("bitnet", "ternary weights, here as plain ones"),
    _row("blenderbot", _DECODER),
    _row("blenderbot-small", _DECODER, quiet=True),
    _row("bloom", "ALiBi"),
    _row("blt"),
    _row("camembert", _BOTH_WAYS, quiet=True, is_decoder=True),
    _row("codegen"),
    _row("cohere", "attention and MLP side by side"),
    _row("cohere2"),
    _row("cohere2_moe"),
    _row(
        "cohere_compass_text",
        layer_types=_WINDOWS,
        rope_parameters={kind: _rope("default") for kind in set(_WINDOWS)},
    ),
    _row("cpmant", prompt_types=2, prompt_length=4, segment_types=2, dim_ff=96, dim_head=16),
    _row("ctrl", "sinusoidal positions"),
    _row("cwm"),
    _row("data2vec-text", _BOTH_WAYS, quiet=True, is_decoder=True),
    _row(
        "dbrx",
        attn_config={"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 10000.0},
        ffn_config={"hidden_size": 64, "ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
    ),
    _row("deepseek_v2"),
    _row("deepseek_v3"),
    _row("deepseek_v32"),
    _row("deepseek_v4"),
    _row("diffllama", "differential attention"),
    _row("doge", "attention chooses what it masks"),
    _row("dots1", layer_types=_WINDOWS),
    _row(
        "dots3_note",
        for_more=True,
        text_config={"model_type": "dots3_note_text", **_DOTS},
        vision_config=_EYES | {"adapter_in_dim": 32, "adapter_out_dim": 64, "per_layer_config": {}},
        audio_config=_EARS | {"adapter_input_size": 32, "adapter_out_dim": 64, "downsample_hidden_size": 16},
    ),
    _row("dots3_note_text", **_DOTS),
    _row("electra", _BOTH_WAYS, quiet=True, is_decoder=True),
    _row("emu3", text_config={"model_type": "emu3_text_model"}, vocabulary_map={}),
    _row("ernie", _BOTH_WAYS, quiet=True, is_decoder=True),
    _row("ernie4_5"),
    _row("ernie4_5_moe", moe_layer_end_index=5),
    _row("exaone4"),
    _row("exaone_moe"),
    _row("falcon", "multi-query"),
    _row("falcon", "ALiBi", "alibi", alibi=True, unlike={"alibi": False}),
    _row("falcon", "grouped queries, two norms", "new architecture", new_decoder_architecture=True),
    _row("falcon_h1", mamba_d_ssm=128),
    _row("falcon_mamba"),
    _row("flex_olmo"),
    _row("flint"),
    _row("fuyu", text_config={"model_type": "persimmon"}),
    _row("gemma"),
    _row("gemma2", attn_logit_softcapping=5.0, unlike={"attn_logit_softcapping": None}),
    _row(
        "gemma3",
        text_config={"model_type": "gemma3_text", "layer_types": _WINDOWS},
        vision_config={"model_type": "siglip_vision_model", **_EYES},
        mm_tokens_per_image=4,
    ),
    _row("gemma3_text", layer_types=_WINDOWS, unlike={"sliding_window": 256}),
    _row("gemma3n"),
    _row("gemma3n_text"),
    _row("gemma4", text_config={"model_type": "gemma4_text", "layer_types": _WINDOWS}),
    _row("gemma4", variant="per-layer embeddings", text_config={"model_type": "gemma4_text", **_PER_LAYER}),
    _row("gemma4_assistant", text_config={"model_type": "gemma4_text", "vocab_size_per_layer_input": 0}),
    _row("gemma4_text", layer_types=_WINDOWS),
    _row("gemma4_text", variant="experts", layer_types=_WINDOWS, enable_moe_block=True),
    _row("gemma4_text", variant="per-layer embeddings", **_PER_LAYER),
    _row(
        "gemma4_text",
        variant="shared keys",
        layer_types=["sliding_attention", "full_attention"] * 3,
        num_kv_shared_layers=2,
    ),
    _row("gemma4_unified", text_config={"model_type": "gemma4_unified_text", "layer_types": _WINDOWS}),
    _row("gemma4_unified_assistant"),
    _row("gemma4_unified_text", layer_types=_WINDOWS),
    _row("git", quiet=True, vision_config={"model_type": "git_vision_model", **_EYES}),
    _row("glm"),
    _row("glm4"),
    _row("glm4_moe"),
    _row("glm4_moe_lite"),
    _row("glm_moe_dsa"),
    _row(
        "glm_moe_dsa",
        variant="shared indexers",
        indexer_types=["full", "shared", "shared", "full", "shared", "shared"],
    ),
    _row("got_ocr2", text_config={"model_type": "qwen2"}, vision_config=_EYES | {"output_channels": 16}),
    _row("gpt-sw3", "learned positions"),
    _row("gpt2", "learned positions"),
    _row(
        "gpt2",
        "learned positions; attention is scaled by the number of the layer",
        "scaled by layer",
        scale_attn_by_inverse_layer_idx=True,
        unlike={"scale_attn_by_inverse_layer_idx": False},
    ),
    _row("gpt_bigcode", "learned positions, multi-query"),
    _row(
        "gpt_neo",
        "learned positions, local attention",
        attention_types=[[["global", "local"], 3]],
        unlike={"window_size": 256},
    ),
    _row("gpt_neox"),
    _row("gpt_neox_japanese"),
    _row("gpt_oss", "attention sinks"),
    _row("gptj"),
    _row("granite", attention_multiplier=0.25),
    _row("granite_swa", attention_multiplier=0.25),
    _row("granitemoe"),
    _row("granitemoe_swa"),
    _row("granitemoehybrid", layer_types=_HYBRID),
    _row("granitemoeshared"),
    _row("helium"),
    _row("hrm_text"),
    _row("hunyuan_v1_dense"),
    _row("hunyuan_v1_moe"),
    _row("hy_v3"),
    _row("hy_v4"),
    _row("hyperclovax"),
    _row("inkling2_text"),
    _row("inkling_text", "relative positions"),
    _row("internlm3"),
    _row("iquestcoder"),
    _row("jais2"),
    _row("jamba"),
    _row("jetmoe"),
    _row("kimi_linear"),
    _row("kolibri1"),
    _row("laguna", layer_types=_WINDOWS),
    _row("lfm2", layer_types=["conv", "conv", "full_attention"] * 2),
    _row("lfm2_moe", layer_types=["conv", "conv", "full_attention"] * 2),
    _row("lfm3"),
    _row("llama", unlike={"rope_parameters": _rope("default", rope_theta=500.0)}),
    _row("llama", "embeddings and head share their weights", "tied", tie_word_embeddings=True),
    _row(
        "llama",
        variant="linear rope",
        rope_parameters=_rope("linear", factor=4.0),
        unlike={"rope_parameters": _rope("default")},
    ),
    _row(
        "llama",
        variant="llama3 rope",
        rope_parameters=_rope(
            "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16
        ),
        unlike={"rope_parameters": _rope("default")},
    ),
    _row(
        "llama",
        variant="yarn",
        rope_parameters=_rope("yarn", factor=8.0, original_max_position_embeddings=16),
        unlike={"rope_parameters": _rope("default")},
    ),
    _row(
        "llama",
        variant="dynamic rope",
        rope_parameters=_rope("dynamic", factor=2.0),
        unlike={"rope_parameters": _rope("default")},
        max_position_embeddings=14,
    ),
    _row(
        "llama4",
        for_more=True,
        text_config={"model_type": "llama4_text"},
        vision_config=_EYES | {"vision_output_dim": 32, "projector_input_dim": 32, "projector_output_dim": 32},
    ),
    _row("llama4_text", unlike={"attention_chunk_size": 256}),
    _row("longcat_flash", "two attentions and a shortcut in each block"),
    _row("mamba"),
    _row("mamba2", num_heads=8, head_dim=16),
    _row("marian", _DECODER, quiet=True),
    _row("mbart", _DECODER),
    _row("megatron-bert", _BOTH_WAYS, quiet=True, is_decoder=True),
    _row("mellum", layer_types=_WINDOWS),
    _row("mimo_v2_flash"),
    _row("minicpm3"),
    _row("minimax"),
    _row("minimax_m2"),
    _row("minimax_m3_vl_text"),
    _row("ministral"),
    _row("ministral3"),
    _row("mistral", unlike={"sliding_window": 256}),
    _row("mixtral", sliding_window=None, unlike={"num_experts_per_tok": 1}),
    _row("mllama", text_config={"model_type": "mllama_text_model", "cross_attention_layers": [2]}),
    _row("modernbert-decoder"),
    _row("moshi"),
    _row("moss_transcribe_diarize", text_config={"model_type": "qwen3"}, audio_config=_EARS),
    _row("mpt", "ALiBi"),
    _row("musicgen"),
    _row("musicgen_melody"),
    _row("mvp", _DECODER, quiet=True),
    _row("nanochat"),
    _row("nemotron"),
    _row(
        "nemotron_h",
        layers_block_type=["linear_attention", "moe", "full_attention", "mlp", "linear_attention", "full_attention"],
    ),
    _row("olmo"),
    _row("olmo2"),
    _row("olmo3"),
    _row("olmo_hybrid"),
    _row("olmoe"),
    _row("openai-gpt", "learned positions"),
    _row("opt", "learned positions"),
    _row(
        "opt",
        "learned positions; narrower embeddings, norm after the layer",
        "projected",
        quiet=True,
        word_embed_proj_dim=32,
        do_layer_norm_before=False,
    ),
    _row("pegasus", _DECODER),
    _row("persimmon"),
    _row("phi"),
    _row("phi3"),
    _row(
        "phi3",
        variant="longrope",
        max_position_embeddings=256,
        original_max_position_embeddings=16,
        rope_parameters=_rope(
            "longrope",
            short_factor=[1.0] * 8,
            long_factor=[1.0 + index for index in range(8)],
            original_max_position_embeddings=16,
        ),
        unlike={"rope_parameters": _rope("default")},
    ),
    _row(
        "phi4_multimodal",
        vision_config=_EYES | {"crop_size": 28},
        audio_config={
            **{"hidden_size": 32, "intermediate_size": 48, "num_blocks": 2, "num_attention_heads": 2},
            **{"ext_pw_out_channel": 32, "depthwise_separable_out_channel": 32, "nemo_conv_channels": 16},
            **{"input_size": 8, "time_reduction": 2, "bias_max_distance": 8},
        },
    ),
    _row("phimoe"),
    _row("plbart", _DECODER, quiet=True),
    _row("prophetnet"),
    _row("qwen2", use_sliding_window=True, max_window_layers=2),
    _row("qwen2_moe", use_sliding_window=True, max_window_layers=2),
    _row("qwen3"),
    _row("qwen3_5", for_more=True, text_config={"model_type": "qwen3_5_text"}, vision_config=_QWEN_EYES),
    _row("qwen3_5_moe", for_more=True, text_config={"model_type": "qwen3_5_moe_text"}, vision_config=_QWEN_EYES),
    _row("qwen3_5_moe_text"),
    _row("qwen3_5_text"),
    _row("qwen3_moe", mlp_only_layers=[1]),
    _row("qwen3_next"),
    _row("qwen4_exp", text_config={"model_type": "qwen4_exp_text"}),
    _row("qwen4_exp_text"),
    _row("recurrent_gemma"),
    _row("reformer", is_decoder=True),
    _row("rembert", _BOTH_WAYS, quiet=True, is_decoder=True),
    _row("roberta", _BOTH_WAYS, quiet=True, is_decoder=True),
    _row("roberta-prelayernorm", _BOTH_WAYS, quiet=True, is_decoder=True),
    _row(
        "roc_bert",
        _BOTH_WAYS,
        quiet=True,
        is_decoder=True,
        pronunciation_vocab_size=VOCABULARY,
        shape_vocab_size=VOCABULARY,
    ),
    _row("roformer"),
    _row("rwkv"),
    _row("seed_oss"),
    _row("smollm3"),
    _row("solar_open"),
    _row("stablelm"),
    _row("starcoder2"),
    _row("trocr", _DECODER, quiet=True),
    _row("vaultgemma"),
    _row("whisper", _DECODER),
    _row("xglm", "sinusoidal positions"),
    _row("xlm"),
    _row("xlm-roberta", _BOTH_WAYS, quiet=True, is_decoder=True),
    _row("xlm-roberta-xl", _BOTH_WAYS, quiet=True, is_decoder=True),
    _row("xlnet"),
    _row("xlstm"),
    _row("xmod"),
    _row("youtu"),
    _row("zamba", layers_block_type=["linear_attention", "linear_attention", "hybrid"] * 2),
    _row("zamba2", layers_block_type=["linear_attention", "linear_attention", "hybrid"] * 2),
    _row("zaya", num_experts_per_tok=1),
)


def make_architecture(directory: Path, architecture: Architecture) -> Path:
    """Save the tiny model, with weights that are the same each time."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        maker = AutoModelForImageTextToText if architecture.for_more else AutoModelForCausalLM
        model: PreTrainedModel = maker.from_config(architecture.config())
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                _redraw(name, tensor, _QUIET_GAIN if architecture.quiet else _GAIN, generator)
    model.save_pretrained(directory)
    return directory


def _redraw(name: str, tensor: Tensor, gain: float, generator: torch.Generator) -> None:
    """As initialised, a tiny model says one token for ever, and hides what is wrong with its layers."""
    draw = torch.randn(tensor.shape, generator=generator).to(tensor.dtype)
    if tensor.ndim < 2 or any(part in name for part in ("A_log", "dt_bias")):
        tensor.add_(draw * 0.1)
    else:
        gain = 1.0 if any(part in name for part in ("embed", "wte", "wpe")) else gain
        tensor.copy_(draw * gain / tensor.shape[-1] ** 0.5)


def some_ids(*shape: int, seed: int = 0) -> Tensor:
    """Token ids, none of them special."""
    return torch.randint(3, VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def speak(model: PreTrainedModel) -> tuple[list[Tensor], list[Tensor]]:
    """What plain transformers makes of a prompt in two rows: the ids of each step, and their logits.

    After the prompt each step is fed its predecessor's best token. Positions are given: some models restart them at 0.
    """
    ids = some_ids(2, PROMPT)
    fed: list[Tensor] = []
    said: list[Tensor] = []
    past: dict[str, Any] = {}
    takes_positions = "position_ids" in inspect.signature(model.forward).parameters
    for _ in range(1 + STEPS):
        start = sum(step.shape[1] for step in fed)
        positions = torch.arange(start, start + ids.shape[1]).expand(2, -1)
        output = model(ids, use_cache=True, **past, **({"position_ids": positions} if takes_positions else {}))
        past = past_of(output)
        fed.append(ids)
        said.append(output.logits)
        ids = output.logits[:, -1:].argmax(-1)
    return fed, said


def past_of(output: ModelOutput) -> dict[str, Any]:
    """The cache that a forward gave back, as the argument for the next."""
    return {name: output[name] for name in ("past_key_values", "cache_params") if output.get(name) is not None}


@dataclass(frozen=True)
class Outcome:
    """What became of a model in pieces: ``refused`` is why a node would not have it.

    Otherwise ``error`` is how far its logits are from those of the whole model, relative to their largest magnitude.
    ``alone`` is why its sessions cannot share a pass; ``together`` how far they are from alone when they do, packed or
    padded.
    """

    error: float = 0.0
    same_tokens: bool = True
    refused: str = ""
    alone: str = ""
    together: float = 0.0

    @property
    def verdict(self) -> str:
        """As in the table."""
        return "refused" if self.refused else "equal"

    @property
    def bound(self) -> float:
        """The error, rounded up to what the table says of it."""
        return next((bound for bound in _BOUNDS if self.error <= bound), float("inf"))


@torch.inference_mode()
def try_architecture(architecture: Architecture, directory: Path) -> Outcome:
    """Make the tiny model, cut it into three, and compare a prompt and cached steps after it with the whole."""
    try:
        read_config(_empty_model(directory / "config", architecture))
        path = make_architecture(directory / "model", architecture)
        walk = Pieces(path).start()
    except ModelUnsupported as refusal:
        return Outcome(refused=refusal.message.partition(" cannot be cut into blocks: ")[2] or refusal.message)
    whole = whole_model(path)
    fed, expected = speak(whole)
    said = [walk.step(ids) for ids in fed]
    size = max(float(logits.abs().max()) for logits in expected)
    error = max(float((ours - theirs).abs().max()) for ours, theirs in zip(said, expected, strict=True)) / size
    same = all(torch.equal(_best(ours), _best(theirs)) for ours, theirs in zip(said, expected, strict=True))
    blocks = walk.pieces.spans[1]
    if blocks.one_by_one:
        return Outcome(error, same, alone=blocks.one_by_one)
    together = error_together(blocks)
    if blocks.packs:
        with unpacked(blocks):
            together = max(together, error_together(blocks))
    return Outcome(error, same, together=together)


def _empty_model(directory: Path, architecture: Architecture) -> ModelSource:
    """What a node sees of a model before it reads weights."""
    architecture.config().save_pretrained(directory)
    save_file({}, directory / "model.safetensors")
    return find_model(str(directory))


def _best(logits: Tensor) -> Tensor:
    return logits[:, -1].argmax(-1)


def traits(architecture: Architecture) -> str:
    """What makes an architecture special, as far as its config tells, and what its row says beside."""
    config = architecture.config()
    text = config.get_text_config(decoder=True)
    kinds = set(getattr(text, "layer_types", None) or ())
    rope = getattr(text, "rope_parameters", None) or {}
    scaled = sorted({str(part["rope_type"]) for part in (rope, *rope.values()) if _is_scaled(part)})
    windows = any("sliding" in kind for kind in kinds) or (not kinds and _has(text, "sliding_window", "window_size"))
    said = {
        architecture.special: True,
        "mixture of experts": _has_experts(text),
        "sliding windows": windows,
        "chunked attention": "chunked_attention" in kinds,
        "latent attention": _has(text, "kv_lora_rank"),
        "an indexer chooses what is attended to": _has(text, "index_topk", "indexer_n_heads"),
        "recurrent or convolution state": bool(kinds & {"linear_attention", "conv", "hybrid", "hybrid_sliding"}),
        "soft caps": _has(text, "attn_logit_softcapping", "final_logit_softcapping", "logits_soft_cap"),
        "rope by kind of layer": any(isinstance(part, dict) for part in rope.values()) and len(rope) > 1,
        f"rope scaling: {', '.join(scaled)}": bool(scaled),
        "also for images or sound": config is not text and _has(config, "vision_config", "audio_config"),
    }
    return ", ".join(words for words, is_so in said.items() if is_so and words)


def _is_scaled(part: object) -> bool:
    return isinstance(part, dict) and part.get("rope_type") not in (None, "default", "proportional")


def _has_experts(text: PreTrainedConfig) -> bool:
    names = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    unused = not getattr(text, "is_moe", True) or not getattr(text, "enable_moe_block", True)
    return (_has(text, *names) and not unused) or _has(getattr(text, "ffn_config", None), "moe_num_experts")


def _has(config: object, *names: str) -> bool:
    return any(getattr(config, name, None) for name in names)


# The table's columns; another is one line here.
COLUMNS: dict[str, Callable[[Architecture, Outcome], str]] = {
    "architecture": lambda architecture, _: (
        f"`{architecture.model_type}`" + (f", {architecture.variant}" if architecture.variant else "")
    ),
    "class": lambda architecture, _: f"`{architecture.class_name}`",
    "what is special": lambda architecture, _: traits(architecture),
    "result": lambda _, outcome: outcome.verdict,
    "many sessions": lambda _, outcome: "" if outcome.refused else outcome.alone or _TOGETHER,
    "largest error, or why not": lambda _, outcome: outcome.refused or _BOUNDS[outcome.bound],
}


def table(outcomes: Mapping[Architecture, Outcome]) -> str:
    """The table in Markdown."""
    rows = [[write(architecture, outcome) for write in COLUMNS.values()] for architecture, outcome in outcomes.items()]
    lines = [list(COLUMNS), ["---"] * len(COLUMNS), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def documented() -> dict[str, Outcome]:
    """What the page says of each architecture, by the name of its row. The error is the bound that it gives."""
    found = {}
    for line in _table_of(PAGE.read_text()).splitlines()[2:]:
        cells = dict(zip(COLUMNS, (cell.strip() for cell in line.strip("|").split("|")), strict=True))
        said, refused = cells["largest error, or why not"], cells["result"] == "refused"
        bounds = {words: bound for bound, words in _BOUNDS.items()}
        found[cells["architecture"].replace("`", "")] = (
            Outcome(refused=said)
            if refused
            else Outcome(error=bounds[said], alone=cells["many sessions"].replace(_TOGETHER, ""))
        )
    return found


def _table_of(page: str) -> str:
    return page.partition(_BEGIN)[2].partition(_END)[0]


def main() -> None:
    """Try all architectures; print their table, or write it into the page."""
    arguments = argparse.ArgumentParser(description=main.__doc__)
    arguments.add_argument("--write", action="store_true", help="write the table into docs/models.md")
    write = arguments.parse_args().write
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(1)
    outcomes = {}
    for architecture in ARCHITECTURES:
        with tempfile.TemporaryDirectory() as directory:
            outcomes[architecture] = try_architecture(architecture, Path(directory))
        print(f"{architecture.name}: {outcomes[architecture]}", file=sys.stderr, flush=True)
    if not write:
        print(table(outcomes), end="")
        return
    page = PAGE.read_text()
    PAGE.write_text(page.replace(_BEGIN + _table_of(page), f"{_BEGIN}{table(outcomes)}"))


if __name__ == "__main__":
    main()
