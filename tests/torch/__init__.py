"""Tests of the torch hook; they need torch, transformers and timm (`make test-torch`)."""
