"""Where things run: Ray Serve, its proxy, the embedded Redis, and their orderly end."""
