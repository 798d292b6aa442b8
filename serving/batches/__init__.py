"""OpenAI's Batch API: files of requests, run in the background through the gateway's own request path."""
