"""Event log to model: histories, features, the members (network, trees), their fusion, and their evaluation."""
