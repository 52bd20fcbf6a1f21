"""Table encoder, estimators, saving and loading."""
