"""Configurations of InternVL2 checkpoints in the original layout: the published sizes, and a tiny one of each kind."""


def tiny_config(kind: str, side: int = 56, vocab_size: int = 1024) -> dict:
    """An original `config.json`: grouped keys for InternLM2, long rope for Phi-3, thresholds within reach of a test."""
    llm = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    llm |= {"rms_norm_eps": 1e-5, "hidden_act": "silu", "vocab_size": vocab_size}
    if kind == "phi3":
        scaling = {"type": "su", "short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [1.0, 2.0, 5.0, 9.0]}
        llm |= {"model_type": "phi3", "architectures": ["Phi3ForCausalLM"], "num_key_value_heads": 4}
        llm |= {"max_position_embeddings": 8192, "original_max_position_embeddings": 4096, "rope_scaling": scaling}
        llm |= {
            "rope_theta": 10000.0,
            "sliding_window": 262144,
            "bos_token_id": 1,
            "eos_token_id": 3,
            "pad_token_id": 3,
        }
    else:
        llm |= {"model_type": "internlm2", "architectures": ["InternLM2ForCausalLM"], "num_key_value_heads": 2}
        llm |= {"max_position_embeddings": 4096, "rope_scaling": {"type": "dynamic", "factor": 2.0}, "bias": False}
        llm |= {"rope_theta": 1000000, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    vision = {"model_type": "intern_vit_6b", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    vision |= {
        "num_attention_heads": 2,
        "image_size": side,
        "patch_size": 14,
        "qkv_bias": True,
        "norm_type": "layer_norm",
    }
    vision |= {"qk_normalization": False, "initializer_factor": 1.0, "hidden_act": "gelu", "layer_norm_eps": 1e-6}
    return {
        "architectures": ["InternVLChatModel"],
        # As published: names code that no test folder holds and that must never be asked for.
        "auto_map": {
            "AutoConfig": "configuration_internvl_chat.InternVLChatConfig",
            "AutoModel": "modeling_internvl_chat.InternVLChatModel",
        },
        "model_type": "internvl_chat",
        "template": "phi3-chat" if kind == "phi3" else "internlm2-chat",
        "ps_version": "v2",
        "select_layer": -1,
        "downsample_ratio": 0.5,
        "force_image_size": side,
        "torch_dtype": "float32",
        "llm_config": llm,
        "vision_config": vision,
    }


def full_config(kind: str) -> dict:
    """The sizes of the published InternVL2-4B (`phi3`) and InternVL2-8B (`internlm2`)."""
    config = tiny_config(kind, side=448)
    config["vision_config"] |= {"hidden_size": 1024, "intermediate_size": 4096}
    config["vision_config"] |= {"num_hidden_layers": 24, "num_attention_heads": 16}
    if kind == "phi3":
        llm = {"vocab_size": 32020, "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32}
        llm |= {"num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 131072}
        llm["rope_scaling"] = {"type": "su", "short_factor": [1.0] * 48, "long_factor": [2.0] * 48}
    else:
        llm = {"vocab_size": 92553, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32}
        llm |= {"num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 32768}
    config["llm_config"] |= llm
    return config
