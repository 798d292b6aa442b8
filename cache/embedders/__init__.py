"""Embedders: encoders that turn texts into unit vectors, and the service that keeps them off the event loop."""

from cache.embedders.bundled import bundled_embedder, load_encoder
from cache.embedders.encoder import Encoder
from cache.embedders.hashing import HashEmbedder
from cache.embedders.service import ThreadedEmbedder

__all__ = ["Encoder", "HashEmbedder", "ThreadedEmbedder", "bundled_embedder", "load_encoder"]
