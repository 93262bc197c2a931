"""Stage 1: which calls are predictions. One file per library."""
