"""*What is in a file?* A stranger's bytes, read as data.

Nothing in them is executed, and no model is known here.
"""
