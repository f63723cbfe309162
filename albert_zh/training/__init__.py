"""What every training shares: Estimator, devices, precision, resuming."""
