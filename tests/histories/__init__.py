"""Random histories of a repository, synced at random moments by two daemons that are killed, against a model."""
