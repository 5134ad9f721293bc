"""The tests; sorted by cost, each folder mirrors `engine/`."""
