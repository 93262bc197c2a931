"""The demo: real flights of 2013, two services, a model, and labels that arrive late."""
