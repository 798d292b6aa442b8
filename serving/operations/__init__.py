"""What an operator needs to explain a curve: events, and drift against a reference."""
