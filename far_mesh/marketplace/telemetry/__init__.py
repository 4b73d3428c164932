"""What is seen from outside: numbers of this gateway and of the books, for Prometheus."""
