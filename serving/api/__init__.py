"""The HTTP face: an OpenAI-compatible ASGI application."""
