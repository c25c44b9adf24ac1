"""Files of weights: read, checked and written, tensor by tensor."""
