"""Git → registry: watch sources, read their commits, check their definitions, register their revisions."""
