"""Tests: `unit` and `sim` need nothing but Python; the other folders say what they need."""
