"""The ProSparse method (arXiv 2402.13516): LLaMA-architecture checkpoints whose FFN activations
are mostly zero."""
