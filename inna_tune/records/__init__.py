"""What a study says: attributes, fingerprint, trials, certainty, wording. Knows ``store`` and ``space``, no estimator."""
