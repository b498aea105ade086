"""Tiny random checkpoints of the current backbones, built from their config classes, in Hugging Face format.

tiny_backbone(tmp_path / "model", "qwen3-vl")
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5OmniConfig,
    Qwen2_5OmniForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
SPECIAL += ["<|video_pad|>", "<img>", "</img>", "<IMG_CONTEXT>"]
OMNI = ["<|IMAGE|>", "<|VIDEO|>", "<|AUDIO|>", "<|vision_bos|>", "<|vision_eos|>", "<|audio_bos|>", "<|audio_eos|>"]


def tokenizer(more: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """One token per byte, the chat and picture tokens of InternVL and Qwen-VL, and `more` special ones."""
    special = [*SPECIAL, *more]
    vocab = {token: i for i, token in enumerate(special + sorted(pre_tokenizers.ByteLevel.alphabet()))}
    core = Tokenizer(models.BPE(vocab, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def tiny_backbone(folder: Path, name: str) -> Path:
    """Write a random `internvl3.5-hf`, `qwen2.5-vl`, `qwen3-vl` or `qwen2.5-omni` and return its folder."""
    torch.manual_seed(0)
    words = tokenizer(OMNI if name == "qwen2.5-omni" else ())
    text = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    text |= {"num_key_value_heads": 2, "vocab_size": len(words), "head_dim": 8, "max_position_embeddings": 4096}
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_heads": 2}
    ids = {
        key: words.convert_tokens_to_ids(token)
        for key, token in {
            "image_token_id": "<|image_pad|>",
            "video_token_id": "<|video_pad|>",
            "vision_start_token_id": "<|vision_start|>",
            "vision_end_token_id": "<|vision_end|>",
        }.items()
    }
    mrope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 1e6}
    if name == "internvl3.5-hf":
        tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
        config = InternVLConfig(
            text_config=text | {"model_type": "qwen3"},
            vision_config=tower | {"image_size": [448, 448], "attention_bias": True},
            image_token_id=words.convert_tokens_to_ids("<IMG_CONTEXT>"),
            tie_word_embeddings=False,
        )
        model = InternVLForConditionalGeneration(config)
    elif name == "qwen2.5-vl":
        config = Qwen2_5_VLConfig(
            text_config=text | {"rope_parameters": mrope},
            vision_config=vision | {"depth": 2, "out_hidden_size": 32, "fullatt_block_indexes": [1]},
            **ids,
        )
        model = Qwen2_5_VLForConditionalGeneration(config)
    elif name == "qwen2.5-omni":
        names = ["image_token_index", "video_token_index", "audio_token_index", "vision_start_token_id"]
        names += ["vision_end_token_id", "audio_start_token_id", "audio_end_token_id"]
        ears = {"encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 48, "d_model": 32}
        thinker = {
            "text_config": text | {"rope_parameters": mrope},
            "vision_config": vision | {"depth": 2, "out_hidden_size": 32, "fullatt_block_indexes": [1]},
            "audio_config": ears | {"num_mel_bins": 32, "output_dim": 32},
            **dict(zip(names, words.convert_tokens_to_ids(OMNI), strict=True)),
        }
        config = Qwen2_5OmniConfig(thinker_config=thinker, enable_audio_output=False)
        model = Qwen2_5OmniForConditionalGeneration(config)
    else:
        deep = {"depth": 4, "out_hidden_size": 32, "patch_size": 16, "deepstack_visual_indexes": [0, 1, 2]}
        config = Qwen3VLConfig(
            text_config=text | {"rope_parameters": mrope | {"mrope_interleaved": True}},
            vision_config=vision | deep | {"num_position_embeddings": 64},
            **ids,
        )
        model = Qwen3VLForConditionalGeneration(config)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    if name != "internvl3.5-hf":
        omni = name == "qwen2.5-omni"
        patch = (model.config.thinker_config if omni else model.config).vision_config.patch_size
        processor = {"image_processor_type": "Qwen2VLImageProcessor", "patch_size": patch, "merge_size": 2}
        processor |= {"temporal_patch_size": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        if omni:
            processor |= {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 32, "chunk_length": 300}
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder
