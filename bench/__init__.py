"""Benchmarks, not tests: what one machine accepts and delivers, beside a tuned Postfix."""
