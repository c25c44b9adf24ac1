"""One card per fusion rule, and the table of them."""
