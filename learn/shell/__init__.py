"""The commands of the shell, and the files that they read and write."""
