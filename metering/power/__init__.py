"""Where joules come from: meters that are read, and models where there is none."""
