"""What a run tells: about its data, its answers and the reader it made."""
