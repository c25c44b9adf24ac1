"""One rule per operator: what it lets pass, ties or fixes."""
