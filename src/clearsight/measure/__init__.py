"""What a model costs: multiply-adds, FLOPs, memory, bytes moved and time, by layer."""
