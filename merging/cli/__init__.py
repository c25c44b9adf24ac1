"""*The same without a browser*: the command line."""
