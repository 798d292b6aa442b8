"""``/v1/embeddings``: an encoder of its own behind the engine seam, batched across requests."""
