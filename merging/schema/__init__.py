"""*What are the words?* Errors, options, records, and cards of what there is to choose.

Needs numpy at most: every process may import it.
"""
