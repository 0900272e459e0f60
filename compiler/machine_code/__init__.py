"""From the text of kernels and drivers to machine code, kept on disk."""
