"""From a program to the text of a kernel: loop nests, in order, written out."""
