"""What makes a reader fast on a CPU, with the same results: memory kept, matrix products, dropout."""
