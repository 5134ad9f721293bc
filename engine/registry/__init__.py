"""The registry: publish a revision in one transaction, resolve a name and a ref to a pinned version."""
