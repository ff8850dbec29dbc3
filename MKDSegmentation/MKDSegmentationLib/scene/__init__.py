"""What a run reads from the scene and writes into it."""
