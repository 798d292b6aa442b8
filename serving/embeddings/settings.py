"""Settings of the embedding model. Each field is documented beneath it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

BUNDLED_ENCODER = "bundled:all-minilm-l6-v2"


class EmbeddingsSettings(BaseModel):
    """`/v1/embeddings`: a sentence-transformers model in a process of its own, on the CPU."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    enabled: bool | None = None
    """Serve embeddings. None: beside the vllm engine only, where a model is loaded anyway; the simulated and upstream
    engines start without it. The bundled encoder takes about 0.6 GB of memory and 15 s of one core to load."""
    model: str = BUNDLED_ENCODER
    """bundled:all-minilm-l6-v2 (travels as a package: 384 dimensions, 256 tokens), or any sentence-transformers model:
    a folder, or a name in the local Hugging Face cache; nothing is downloaded."""
    served_model_name: str | None = None
    """Name that clients ask for. None: all-MiniLM-L6-v2 for the bundled one, else the last part of `model`."""
    replicas: int = Field(default=1, ge=1)
    """Encoder processes; each loads the model and computes on one core."""
    max_batch: int = Field(default=32, ge=1, le=2048)
    """Texts in one pass of the encoder, from one request or many. Larger: more texts per second until the core is
    busy (about 16 for MiniLM), longer waits for small requests behind large ones."""
    batch_wait_seconds: float = Field(default=0.002, ge=0, le=1)
    """Longest time a text waits for others to share its pass when the encoder is idle; while it is busy they gather by
    themselves."""
    max_concurrency: int = Field(default=16, ge=1)
    """Requests inside the encoders at once; more wait in a queue of `admission`'s size and classes, above it 429."""
    matryoshka: bool = False
    """The model was trained so that the first numbers of a vector are a shorter embedding: `dimensions` may then be
    below the model's own. Without it such a request gets 400, since its vectors would be poor ones."""

    @property
    def name(self) -> str:
        if self.served_model_name is not None:
            return self.served_model_name
        return "all-MiniLM-L6-v2" if self.model == BUNDLED_ENCODER else self.model.rstrip("/").rsplit("/", 1)[-1]
