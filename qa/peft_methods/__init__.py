"""What peft lacks for extractive question answering: a right wrapper, and methods it does not have."""
