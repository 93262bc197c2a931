"""State that survives: the file, what is in it, and what is there after the process was killed."""
