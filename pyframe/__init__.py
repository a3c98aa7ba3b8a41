"""pyframe."""
