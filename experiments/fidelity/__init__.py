"""`tokenfleet fidelity`: how far the `batching` discipline under the `roofline` delay model is from real engines."""
