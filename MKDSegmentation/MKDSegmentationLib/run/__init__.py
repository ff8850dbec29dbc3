"""A run: the worker process, the way of the data to it and back, one volume or a sequence."""
