"""Who may use the engine now: the live concurrency cap and the queue before it."""
