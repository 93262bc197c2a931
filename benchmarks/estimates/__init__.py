"""What the benchmark of estimates needs: data sets, cases and the peer."""
