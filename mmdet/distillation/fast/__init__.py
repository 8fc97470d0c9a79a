"""What makes distillation fast; nothing here changes a result."""
