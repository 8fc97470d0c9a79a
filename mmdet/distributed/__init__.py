"""Start several processes, exchange tensors between them, and name those that are lost."""
