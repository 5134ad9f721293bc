"""The routes, one module per aggregate. Short: messages in, service, messages out."""
