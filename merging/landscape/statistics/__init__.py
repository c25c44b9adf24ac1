"""Statistics of hidden units of merged models: RESET, REPAIR, RESCALE."""
