"""What `hello` calls."""


def greet(name: str) -> dict[str, str]:
    """Arguments come from `args`; what is returned becomes the task's outputs. Both are JSON."""
    return {"text": f"Hello, {name}!"}
