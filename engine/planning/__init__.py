"""The plan of a change: what differs in meaning, how risky that is, and what it would do to what runs. Pure."""
