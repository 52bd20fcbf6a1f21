"""Batches, the training loop over a population, early stopping, histories."""
