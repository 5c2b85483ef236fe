"""Synchronous data-parallel SGD with torch's own DistributedDataParallel: the rival of Downpour."""
