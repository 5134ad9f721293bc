"""Activity types: what a task can do, and how the worker runs it."""
