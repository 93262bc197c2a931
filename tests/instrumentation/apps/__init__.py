"""Small programs that the lifecycle tests start as a user would."""
