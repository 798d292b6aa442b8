"""The request path: HTTP API, admission, engines, placement on Ray Serve, tuning."""
