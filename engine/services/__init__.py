"""The service layer, for the API and the console alike: only what joins two rooms."""
