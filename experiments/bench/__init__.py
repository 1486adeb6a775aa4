"""Speed and memory, side by side with what others do, on the same data in the same run: `make bench`."""
