"""What the demo's workflow calls. `deploy` says which edition of this file it was."""

EDITION = "first"


def build(service: str) -> dict[str, str]:
    """Pretend to build an image."""
    return {"image": f"{service}:{EDITION}"}


def deploy(image: str) -> dict[str, str]:
    """Pretend to deploy it."""
    return {"deployed": image, "code": EDITION}
