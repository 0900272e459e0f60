"""From the user's arrays to calls of kernels: read, checked, bound, run over batches on threads."""
