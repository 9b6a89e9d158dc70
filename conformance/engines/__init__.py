"""Container engines, driven end to end with the runtime under test."""
