"""Functions that the workflows of this folder call; a run uses them as they are at its own commit."""


def greet(name: str) -> str:
    """The argument comes from `args`, the return value becomes the task's outputs. Both are JSON."""
    return f"Hello, {name}!"
