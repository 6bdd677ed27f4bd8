"""Networks, one published method a file; `create_model` makes one by name."""
