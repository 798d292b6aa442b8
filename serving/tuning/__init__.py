"""Load, engine model, simulation and search: how large may the batch be, and what does it cost in grams."""
