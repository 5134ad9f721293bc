"""The only Temporal client: start, signal, cancel, query, describe; dispatcher, reconciler, payload storage."""
