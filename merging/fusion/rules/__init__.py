"""One file per fusion rule or family of rules, and the table of them."""
