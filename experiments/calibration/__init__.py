"""`tokenfleet calibrate`: constants of the `roofline` delay model, fitted to measured step times."""
