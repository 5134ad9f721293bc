"""HTTP: app, auth, the problem+json door, routes and messages."""
