"""Start several processes, exchange tensors between them, and notice those that are lost."""
