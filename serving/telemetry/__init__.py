"""What the gateway tells about each request: a log line, a span."""
