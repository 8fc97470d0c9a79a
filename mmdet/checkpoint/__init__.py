"""Read and write checkpoint files safely."""
