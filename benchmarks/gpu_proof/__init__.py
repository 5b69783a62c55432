"""What the speed and memory of a GPU are proven with: one command, a table, eight minutes at most."""
