"""A model as a graph of operators that runs with any parameters."""
