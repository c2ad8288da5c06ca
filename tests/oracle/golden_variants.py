"""The seeded checkpoints of make_golden.py, by the config.json that each has."""

BOS, EOS = 1, 2

BASE = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "relu",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 300,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "torch_dtype": "float32",
}

# The variants that have COMPACT_PROMPTS prompts.
COMPACT = BASE | {
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_key_value_heads": 2,
    "vocab_size": 131,
    "torch_dtype": "bfloat16",
}
MUP = {"scale_emb": 12, "scale_depth": 1.4, "dim_model_base": 8}
OPT = {
    "architectures": ["OPTForCausalLM"],
    "model_type": "opt",
    "activation_function": "relu",
    "hidden_size": 32,
    "ffn_dim": 56,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 131,
    "max_position_embeddings": 104,
    "do_layer_norm_before": True,
    "word_embed_proj_dim": 32,
    "bos_token_id": 2,
    "eos_token_id": 2,
    "pad_token_id": 1,
    "torch_dtype": "bfloat16",
}

# name -> (changes to BASE, number of safetensors files); None removes the key.
VARIANTS = {
    "relu_mha_untied": ({"intermediate_size": 88, "vocab_size": 269}, 1),
    "silu_gqa_tied": (
        {"hidden_act": "silu", "num_key_value_heads": 2, "tie_word_embeddings": True},
        1,
    ),
    "relu_gqa_untied_sharded": ({"num_key_value_heads": 1, "rope_theta": 500000.0}, 2),
    # As the published ProSparse checkpoints: no rope_theta key.
    "fatrelu_gqa_tied": (
        {
            "architectures": ["SparseLlamaForCausalLM"],
            "model_type": "sparsellama",
            "hidden_act": "fatrelu",
            "hidden_act_param": 0.25,
            "num_key_value_heads": 2,
            "tie_word_embeddings": True,
            "rope_theta": None,
        },
        1,
    ),
    "relu_gqa_untied_bf16": (
        {
            "num_key_value_heads": 2,
            "num_hidden_layers": 3,
            "rms_norm_eps": 1e-6,
            "torch_dtype": "bfloat16",
        },
        1,
    ),
}


# name -> config.json; None removes the key.
COMPACT_VARIANTS = {
    "bamboo_drelu": COMPACT
    | {"architectures": ["BambooForCausalLM"], "model_type": "bamboo", "sliding_window": None},
    # As SakanaAI's files: hidden_act is not what the model computes.
    "llama_sparse_relu": COMPACT
    | {
        "architectures": ["LlamaSparseReluForCausalLM"],
        "model_type": "llama_sparse_relu",
        "hidden_act": "silu",
    },
    "llama_attention_bias": COMPACT | {"attention_bias": True},
    "mistral_window": COMPACT
    | {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "sliding_window": 12,
        "attention_bias": None,
        "mlp_bias": None,
    },
    # As openbmb/MiniCPM-S-1B-sft: no model_type, no tie_word_embeddings, which means tied.
    "minicpm_mup": COMPACT
    | MUP
    | {
        "architectures": ["MiniCPMForCausalLM"],
        "model_type": None,
        "hidden_act": "fatrelu",
        "hidden_act_param": 0.25,
        "rope_theta": None,
        "tie_word_embeddings": None,
    },
    # As ProSparse-MiniCPM-1B-sft-llama-format: the scales are in the weights and still in the file.
    "minicpm_llama_format": COMPACT | MUP,
    "opt": OPT,
    "opt_350m": OPT | {"do_layer_norm_before": False, "word_embed_proj_dim": 24},
    "rope_linear": COMPACT
    | {"max_position_embeddings": 52, "rope_scaling": {"type": "linear", "factor": 2.0}},
    "rope_dynamic": COMPACT
    | {"max_position_embeddings": 26, "rope_scaling": {"type": "dynamic", "factor": 4.0}},
    "rope_llama3": COMPACT
    | {
        "rope_theta": 500.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
    # Four frequencies of which one stays, one is half way, two are divided.
    "rope_yarn": COMPACT
    | {
        "rope_theta": 500.0,
        "max_position_embeddings": 104,
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 26,
            "beta_fast": 4.0,
            "beta_slow": 0.5,
        },
    },
    # The context before scaling is max_position_embeddings.
    "rope_yarn_mscale": COMPACT
    | {
        "rope_theta": 500.0,
        "max_position_embeddings": 26,
        "rope_scaling": {
            "type": "yarn",
            "factor": 4.0,
            "truncate": False,
            "mscale": 1.5,
            "mscale_all_dim": 0.5,
        },
    },
}
