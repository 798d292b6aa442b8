"""Engines behind one seam: vLLM in process, any OpenAI-compatible upstream, a seeded simulation."""
