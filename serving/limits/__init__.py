"""Rates, concurrency and carbon budgets of tenants: reserved, settled with the real figure, right over replicas."""
