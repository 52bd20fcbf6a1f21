"""What the command line does: tuning, joining, comparing, baselines. Knows ``study`` and below."""
